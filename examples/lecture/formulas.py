"""Formulas: LaTeX to MathML, and a font with what they use, so that brackets grow on every machine."""

import base64
import io
import re
import unicodedata
from html import unescape
from importlib import resources

import latex2mathml.converter
from fontTools import subset
from fontTools.ttLib import TTFont

# single letters in <mi> are shown in italics, which are characters of their own; that of h is older than the rest
ITALIC = {"h": 0x210E} | {
    chr(int(unicodedata.decomposition(chr(k)).split()[1], 16)): k
    for k in range(0x1D400, 0x1D800)
    if unicodedata.name(chr(k), "").startswith("MATHEMATICAL ITALIC")
}

THIN = '<mspace width="0.17em" />'
REPAIRS = {
    "<mi>&#x0007E;</mi>": "<mo>&#x0223C;</mo>",
    "<mo>&#x0002F;</mo>": '<mo lspace="0" rspace="0">/</mo>',
    "<mo>&#x0221E;</mo>": "<mi>&#x0221E;</mi>",
}


def mathml(latex: str, display: bool) -> str:
    """The formula as MathML, with what the converter leaves out: the space beside the name of a function, none beside
    a slash, and ~ as a relation."""
    text = latex2mathml.converter.convert(latex, display="block" if display else "inline")
    text = re.sub(r"(<m[io]>[A-Za-z]{2,}</m[io]>)(?=<m(?!o\b))", rf"\1{THIN}", text)
    text = re.sub(r"(</m(?!o\b)\w+>|&#x0220[27];</mo>)(?=<mi>[A-Za-z]{2,}</mi>)", rf"\1{THIN}", text)
    for old, new in REPAIRS.items():
        text = text.replace(old, new)
    return text


def font(page: str) -> str:
    """STIX Two Math, cut down to the characters in the formulas of a page, as an address (SIL Open Font License).

    Raises ValueError where the font lacks one of them.
    """
    used = set("".join(unescape(re.sub(r"<[^>]*>", "", m)) for m in re.findall(r"<math.*?</math>", page, re.DOTALL)))
    used = used - set(" \n\u00a0") | {"\u221a"}  # the root is an element, not a character
    with resources.files("ziamath.fonts").joinpath("STIXTwoMath-Regular.ttf").open("rb") as file:
        found = TTFont(file, recalcTimestamp=False)
        missing = used - set(map(chr, found.getBestCmap()))
        if missing:
            raise ValueError(f"the font of the formulas has no {' '.join(sorted(missing))}")
        options = subset.Options(hinting=False, layout_features=["ssty"], drop_tables=["DSIG"])
        cut = subset.Subsetter(options)
        cut.populate(unicodes=[ord(c) for c in used] + [ITALIC[c] for c in used if c in ITALIC])
        cut.subset(found)
        found.flavor, out = "woff", io.BytesIO()
        found.save(out)
    return "data:font/woff;base64," + base64.b64encode(out.getvalue()).decode()
