"""Pictures of graphs: what they show is the graph, and what they show can be read."""

import re
import xml.etree.ElementTree as xml

import matplotlib.image
import numpy as np
import pytest

import scg
from examples import gallery
from scg import distributions as dist
from scg.core.node import Node
from scg.stochastic.pictures import MOST
from scg.stochastic.sites import is_stochastic

SVG = "{http://www.w3.org/2000/svg}"


def traced(name):
    return gallery.ENTRIES[name].graph(np.random.default_rng(0))


def edges_of(graph):
    """Distinct pairs of places in ``graph.nodes`` that an operand joins."""
    number = {node.id: k for k, node in enumerate(graph.nodes)}
    return {(number[o.id], number[node.id]) for node in graph.nodes for o in node.operands if type(o) is Node}


@pytest.mark.parametrize("name", gallery.ENTRIES)
def test_text_dot_and_mermaid_show_the_nodes_and_what_leads_to_which(name):
    graph = traced(name)
    nodes, edges = graph.nodes, edges_of(graph)
    lines = str(graph).splitlines()
    assert len(lines) == len(nodes)
    shown = {(int(a), int(line.split()[0])) for line in lines if "←" in line for a in line.split("←")[1].split()}
    assert shown == edges
    for k, (node, line) in enumerate(zip(nodes, lines, strict=True)):
        mark = (
            "○"
            if is_stochastic(node)
            else {"parameter": "θ", "noise": "·"}.get(node.primitive.name, "■" if node is graph.cost else "□")
        )
        assert line.split()[:2] == [str(k), mark] and f"{node.dtype}{list(node.shape)}" in line
    dot = graph.to_dot()
    assert {(int(a), int(b)) for a, b in re.findall(r"n(\d+) -> n(\d+);", dot)} == edges
    assert (
        dot.count("shape=ellipse") == len(graph.stochastic)
        and dot.count("[shape=") == len(nodes)
        and dot.count("peripheries=2") == 1
    )
    mermaid = graph.to_mermaid()
    assert {(int(a), int(b)) for a, b in re.findall(r"n(\d+) --> n(\d+)", mermaid)} == edges
    assert len(re.findall(r'^  n\d+[(\[]+"', mermaid, re.MULTILINE)) == len(nodes)


def test_a_picture_is_the_same_whenever_it_is_made():
    one, two = traced("schulman-5"), traced("schulman-5")
    assert one.cost.id != two.cost.id
    assert (str(one), one.to_dot(), one.to_mermaid(), one._repr_svg_()) == (
        str(two),
        two.to_dot(),
        two.to_mermaid(),
        two._repr_svg_(),
    )


def shapes_and_lines(svg):
    """((left, top, right, bottom) of each node, points along each edge, labels) of an SVG picture."""
    root = xml.fromstring(svg)
    boxes, lines = [], []
    for shape in root.iter():
        f = {k: float(v) for k, v in shape.attrib.items() if re.fullmatch(r"-?[\d.]+", v)}
        if shape.tag == SVG + "rect":
            boxes.append((f["x"], f["y"], f["x"] + f["width"], f["y"] + f["height"]))
        elif shape.tag == SVG + "ellipse":
            boxes.append((f["cx"] - f["rx"], f["cy"] - f["ry"], f["cx"] + f["rx"], f["cy"] + f["ry"]))
        elif shape.tag == SVG + "path" and "marker-end" in shape.attrib:
            points, at = [], None
            for command, numbers in re.findall(r"([MLC])([^MLC]+)", shape.attrib["d"]):
                p = np.array(numbers.split(), float).reshape(-1, 2)
                t = np.linspace(0, 1, 30)[:, None]
                if command == "C":
                    points.append(
                        (1 - t) ** 3 * at + 3 * t * (1 - t) ** 2 * p[0] + 3 * t**2 * (1 - t) * p[1] + t**3 * p[2]
                    )
                elif at is not None:
                    points.append((1 - t) * at + t * p[0])
                at = p[-1]
            lines.append(np.concatenate(points))
    return root, boxes, lines, [text.text for text in root.iter(SVG + "text")]


def inside(points, box, slack=2.0):
    left, top, right, bottom = box
    x, y = points[:, 0], points[:, 1]
    return ((x > left + slack) & (x < right - slack) & (y > top + slack) & (y < bottom - slack)).any()


@pytest.mark.parametrize("name", gallery.ENTRIES)
def test_nothing_lies_over_anything_in_the_svg(name):
    graph = traced(name)
    root, boxes, lines, labels = shapes_and_lines(graph._repr_svg_())
    assert len(boxes) == len(graph.nodes) and len(lines) == len(edges_of(graph))
    assert not any(
        a < d and c > b
        for k, (a, _, c, _) in enumerate(boxes)
        for j, (b, _, d, _) in enumerate(boxes)
        if j < k and max(boxes[k][1], boxes[j][1]) < min(boxes[k][3], boxes[j][3])
    )
    assert not any(inside(line, box) for line in lines for box in boxes)
    width, height = float(root.get("width")), float(root.get("height"))
    assert all(0 <= left and right <= width and 0 <= top and bottom <= height for left, top, right, bottom in boxes)
    assert max(map(len, labels)) * 6.5 <= boxes[0][2] - boxes[0][0]  # a letter of 11 pixels is 6 wide on average


def test_a_deep_graph_runs_down_the_page_and_a_shallow_one_across(tmp_path):
    """So that letters are legible where a page or a notebook is some 1,000 pixels wide."""
    sizes = {}
    for name in ("policy", "schulman-1"):
        graph = traced(name)
        graph.save(tmp_path / "model.svg")
        root, boxes, lines, _ = shapes_and_lines((tmp_path / "model.svg").read_text())
        assert not any(inside(line, box) for line in lines for box in boxes)
        sizes[name] = float(root.get("width")), float(root.get("height"))
    assert max(sizes["policy"]) < 1000  # it was 4,652 pixels wide
    assert sizes["schulman-1"][0] > sizes["schulman-1"][1]


def test_names_are_escaped():
    name = '<b> & "c" \\ d'
    graph = scg.trace(
        lambda t, rng: scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name=name),
        np.array(0.1),
        rng=np.random.default_rng(0),
    )
    assert any(name in label for label in shapes_and_lines(graph._repr_svg_())[3])
    assert '<b> & \\"c\\" \\\\ d' in graph.to_dot() and "&lt;b&gt; &amp; &quot;c&quot;" in graph.to_mermaid()


def test_a_large_graph_is_summarised():
    def cost(t, rng):
        x = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="x")
        for _ in range(MOST):
            x = np.tanh(x)
        y = scg.sample(dist.Normal(x, 1.0), scg.Reparameterized(), rng=rng, name="y")
        return y * t

    graph = scg.trace(cost, np.array(0.1), rng=np.random.default_rng(0))
    assert len(graph.nodes) > MOST
    lines = str(graph).splitlines()
    assert [line.split()[1:3] for line in lines[:-1]] == [["θ", "t"], ["○", "x"], ["○", "y"], ["■", "multiply"]]
    assert f"({len(graph.nodes) - 4} more nodes" in lines[-1]
    assert set(re.findall(r"n\d+ -> n\d+", graph.to_dot())) == {"n0 -> n1", "n1 -> n2", "n2 -> n3", "n0 -> n3"}
    assert len(shapes_and_lines(graph._repr_svg_())[1]) == 4


def parted(p, rng):
    z = scg.sample(dist.Normal(np.tanh(p["w"]), 1.0), scg.Reparameterized(), rng=rng, name="z")
    b = scg.sample(dist.Bernoulli(logits=z), scg.DisARM(), rng=rng, name="b")
    return scg.named(np.sum((z - 1) ** 2) / 2, "KL") + scg.named(np.sum((b - 0.4) ** 2), "misfit $x_1$")


def test_a_name_changes_neither_value_nor_gradient_and_what_is_no_node_has_none():
    p = {"w": np.array([0.1, -0.3])}
    value, gradient = scg.value_and_grad(lambda p: scg.named(np.sum(p["w"] ** 2), "energy"))(p)
    assert value == np.sum(p["w"] ** 2) and scg.named(3.0, "three") == 3.0
    np.testing.assert_array_equal(gradient["w"], 2 * p["w"])
    np.testing.assert_array_equal(
        scg.compile(scg.grad(lambda p: scg.named(np.sum(p["w"] ** 2), "energy")))(p)["w"], 2 * p["w"]
    )
    with pytest.raises(scg.errors.ScgTypeError, match="string"):
        scg.named(3.0, 3)


def test_a_saved_picture_is_that_of_the_model_and_with_detail_that_of_all_operations(tmp_path):
    graph = scg.trace(parted, {"w": np.zeros(2)}, rng=np.random.default_rng(0))
    model = {"p['w']", "z ~ Normal", "Reparameterized()", "b ~ Bernoulli", "DisARM()", "KL", "misfit $x_1$", "add"}
    graph.save(tmp_path / "model.svg")
    root, boxes, _, labels = shapes_and_lines((tmp_path / "model.svg").read_text())
    assert set(labels) == model and len(boxes) == 6
    assert root.get("viewBox") and "max-width:100%" in root.get("style")  # it scales
    graph.save(tmp_path / "all.svg", detail=True)
    assert (tmp_path / "all.svg").read_text().strip() == graph._repr_svg_()
    graph.save(tmp_path / "model.dot")
    assert (tmp_path / "model.dot").read_text().count("[shape=") == 6
    graph.save(str(tmp_path / "all.mmd"), detail=True)
    assert (tmp_path / "all.mmd").read_text().strip() == graph.to_mermaid()


@pytest.mark.parametrize("steps", [1, 40])
def test_pdf_and_png_fit_a_page_whatever_the_size_of_the_graph(tmp_path, steps):
    def cost(t, rng):
        x, total = 0.0, 0.0
        for _ in range(steps):
            x = scg.sample(dist.Bernoulli(logits=t + x), scg.ScoreFunction(), rng=rng)
            total = total + x
        return total

    graph = scg.trace(cost, np.array(0.1), rng=np.random.default_rng(0))
    for kind in ("pdf", "png"):
        for name in ("one", "two"):
            graph.save(tmp_path / f"{name}.{kind}")
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    left, bottom, right, top = map(
        float, re.search(rb"/MediaBox \[([^\]]*)\]", (tmp_path / "one.pdf").read_bytes())[1].split()
    )
    short, long = sorted([right - left, top - bottom])
    assert 50 < short <= 8 * 72 and 100 < long <= 11 * 72
    image = matplotlib.image.imread(tmp_path / "one.png")
    assert max(image.shape) <= 11 * 200 and image[..., :3].min() < 0.5 < image[..., :3].mean()  # ink on paper


def test_a_kind_of_file_that_is_none_is_refused(tmp_path):
    graph = scg.trace(parted, {"w": np.zeros(2)}, rng=np.random.default_rng(0))
    with pytest.raises(scg.errors.ScgValueError, match=".pdf, .png"):
        graph.save(tmp_path / "model.gif")
    assert not any(tmp_path.iterdir())
