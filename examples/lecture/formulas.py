"""Formulas: LaTeX to MathML, and a font with what they use, so that brackets grow on every machine."""

import base64
import io
import itertools
import re
import unicodedata
from html import unescape
from importlib import resources
from xml.etree import ElementTree

import latex2mathml.converter
from fontTools import subset
from fontTools.ttLib import TTFont

# single letters in <mi> are shown in italics, which are characters of their own; that of h is older than the rest
ITALIC = {"h": 0x210E} | {
    chr(int(unicodedata.decomposition(chr(k)).split()[1], 16)): k
    for k in range(0x1D400, 0x1D800)
    if unicodedata.name(chr(k), "").startswith("MATHEMATICAL ITALIC")
}

MATHML = "http://www.w3.org/1998/Math/MathML"
ROWS = {"math", "mrow", "mtd", "mstyle"}  # elements whose children stand in a line


def mathml(latex: str, display: bool) -> str:
    """The formula as MathML, with what the converter leaves out: space beside the name of a function and none beside a
    slash or a bar of a norm, primes that stand on the line (the character is raised already), ~ as a relation."""
    ElementTree.register_namespace("", MATHML)
    root = ElementTree.fromstring(latex2mathml.converter.convert(latex, display="block" if display else "inline"))
    for parent in list(root.iter()):
        if _tag(parent) in ROWS:
            _spaced(parent)
        elif _tag(parent) == "msup" and (parent[1].text or "").startswith("\u2032"):
            parent.tag = f"{{{MATHML}}}mrow"
            parent[1].tag = f"{{{MATHML}}}mi"
    for node in root.iter():
        text = node.text or ""
        if text == "~" and _tag(node) == "mi":
            node.tag, node.text = f"{{{MATHML}}}mo", "\u223c"
        elif text == "\u221e":
            node.tag = f"{{{MATHML}}}mi"
        elif text in ("/", "|"):
            node.attrib.update(lspace="0", rspace="0")
    return ElementTree.tostring(root, encoding="unicode")


def _spaced(row: ElementTree.Element) -> None:
    """Put a thin space between the name of a function and what stands beside it, as TeX does."""
    children = list(row)
    for k, (left, right) in reversed(list(enumerate(itertools.pairwise(children)))):
        after = _function(left) and _tag(right) != "mo"
        before = _function(right) and (_tag(left) != "mo" or left.text in ("\u2207", "\u2202"))
        if after or before:
            row.insert(k + 1, ElementTree.Element(f"{{{MATHML}}}mspace", width="0.17em"))


def _function(node: ElementTree.Element) -> bool:
    """Whether it is ln, or cos with an exponent."""
    while _tag(node) in ("msup", "msub", "msubsup"):
        node = node[0]
    return _tag(node) == "mi" and len(node.text or "") > 1 and (node.text or "").isalpha()


def _tag(node: ElementTree.Element) -> str:
    return node.tag.rpartition("}")[2]


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
