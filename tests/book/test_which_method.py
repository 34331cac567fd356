"""The page "Which method, when": its tables are the stored results, its words and calls hold."""

import importlib
import re
import statistics

from prosper_utils.pruning import budgets, masks, networks
from prosper_utils.study import results

import keras
import methods
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import ROOT

PAGE = (ROOT / "book" / "which_method.md").read_text()
CALLS = re.findall(r"^### (.*?)\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", methods.PARTS)
def test_its_tables_are_those_of_the_stored_results(name):
    stored = (methods.FOLDER / f"{name}.md").read_text()
    assert methods.PARTS[name]() == stored, "out of date: run `make front`"
    assert f"{{include}} front_page/{name}.md" in PAGE
    assert not re.search(r"\d\.\d%|\d points", PAGE)  # no result is typed on the page itself


def test_a_cell_of_each_table_counted_by_hand():
    rows = results.load("regrowth")[0].to_dict("records")
    wanted = {"network": "LeNet-5", "arm": "credit", "variant": "as is", "sparsity": 0.99}
    found = statistics.mean(r["error"] for r in rows if wanted.items() <= r.items())
    (line,) = re.findall(r"\| regrowth by credit \|.*", methods.weights())
    assert line.split(" | ")[-3] == f"{found:.1f}"

    rows = results.load("units")[0].to_dict("records")
    wanted = {"network": "ResNet-8", "score": "Taylor per multiply-add", "share": 0.5}
    wanted |= {"when": "trained", "variant": "kept"}
    found = statistics.mean(r["error"] for r in rows if wanted.items() <= r.items())
    (line,) = re.findall(r"\| ½ after: Taylor \|.*", methods.units())
    assert line.split(" | ")[-1] == f"{found:.1f} |"


def test_only_the_rows_that_a_cell_is_of_are_in_its_mean(monkeypatch):
    """Every table holds a row that differs from those that count in one column alone."""

    def rows(**case):
        others = {"network": "another", "arm": "GraSP", "variant": "another", "sparsity": 0.5}
        errors = [(case, 1.0), (case, 4.0)]
        errors += [(case | {name: other}, 90.0) for name, other in others.items()]
        return [row | {"error": error} for row, error in errors]

    stored = {
        "regrowth": rows(network="LeNet-5", arm="credit", variant="as is", sparsity=0.99),
        "regrowth_fashion": [
            row
            for row in rows(network="LeNet-300-100", arm="SNIP", variant="as is", sparsity=0.99)
            if row["variant"] == "as is"  # it has no other
        ],
        "colour": rows(network="ResNet-8", arm="magnitude", variant="as it is", sparsity=0.95)
        + rows(network="ResNet-8", arm="ProsPr", variant="as it is", sparsity=0.95),
    }
    steps = {"regrowth": 1234, "regrowth_fashion": 5, "colour": 6}
    monkeypatch.setattr(
        results,
        "load",
        lambda name: (
            pd.DataFrame(stored[name]),
            {"configuration": {"training": {"steps": steps[name]}}},
        ),
    )
    made = methods.weights()
    assert ", after 1,234 steps, the mean of five seeds; colour is " in made
    assert made.splitlines()[3:] == [
        "|  | dense, 95% | dense, 99% | conv, 95% | conv, 99% | clothes, 99% | colour, 95% |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| gradual magnitude | – | – | – | – | – | – |",
        "| magnitude, after training | – | – | – | – | – | – |",
        "| regrowth by credit | – | – | – | 2.5 | – | – |",
        "| SynFlow | – | – | – | – | – | – |",
        "| ProsPr in rounds | – | – | – | – | – | – |",
        "| ProsPr | – | – | – | – | – | 2.5 |",
        "| SNIP | – | – | – | – | 2.5 | – |",
        "```",
    ]


def test_the_words_of_the_page_hold():
    table = results.load("regrowth")[0]
    table = table[(table.variant == "as is") & table.arm.isin(methods.ARMS.values())]
    error = table.pivot_table(index="arm", columns=["network", "sparsity"], values="error")
    error = error[methods.COLUMNS[:4]]  # those on MNIST
    frozen = ["SNIP", "ProsPr", "iterative ProsPr", "SynFlow"]
    lower = error.lt(error.loc["gradual magnitude"]).stack([0, 1], future_stack=True)
    assert lower[lower].index.tolist() == [("credit", "LeNet-5", 0.99)]
    assert (error.loc["gradual magnitude"] < error.loc[frozen].min()).all()
    assert (error.loc["credit"] < error.loc[frozen].min()).all()
    assert error.loc[frozen].idxmin()["LeNet-5", 0.99] == "SynFlow"
    high = error["LeNet-300-100", 0.99]
    assert high["gradual magnitude"] < high["magnitude"]
    assert sum(error.loc["gradual magnitude"] < error.loc["credit"]) >= 3  # at most sparsities

    dense = results.load("regrowth")[0].query("network == @methods.DENSE and sparsity == 0.99")
    start = dense[dense.arm == "credit"].groupby("variant").error.mean()
    assert start["from random"] > start["as is"] + 0.5

    colour = results.load("colour")[0].query("sparsity == 0.95 and variant == 'as it is'")
    of = colour.groupby("arm").error.mean()
    assert of["gradual magnitude"] < of["credit"] < of[["SNIP", "ProsPr"]].min()
    assert colour.groupby("arm").seed.nunique()[["credit", "SNIP", "ProsPr"]].min() >= 3

    bench = results.load("bench_units")[0]
    cut = bench[bench.model == "a quarter"]
    assert (cut.faster_256.dropna() > 1).all()
    assert (cut.smaller.dropna() > 1).all()


SHORTER = {"every=100": "every=8", "epochs=10": "epochs=1"}


@pytest.mark.parametrize("code", [code for _, code in CALLS], ids=[name for name, _ in CALLS])
@pytest.mark.filterwarnings("ignore:.*shuffle=True")
def test_its_calls_run_and_leave_what_they_say(code, digits):
    x, y = (part[:128] for part in digits.train)
    model = networks.dense_300_100("relu", units=(32, 16))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    found = {"model": model, "train": train, "epoch": len(train)}
    for module in set(re.findall(r"\b([a-z]+)\.[A-Za-z]", code)) - {"model", "small", "train"}:
        found[module] = importlib.import_module(f"prosper_utils.pruning.{module}")
    for long, short in SHORTER.items():
        code = code.replace(long, short)
    exec(code.replace(".fit(train", ".fit(train, verbose=0"), found)
    if "small" in found:
        assert budgets.cost(found["small"]) <= budgets.cost(model) / 2
    else:
        left = sum(kept for _, kept, _ in masks.per_layer(model))
        assert left == masks.kept(sum(np.size(k) for k in networks.kernels(model)), 0.95)
        assert masks.outside(model) == []


def test_every_method_of_the_short_table_has_a_section_with_its_call():
    targets = set(re.findall(r"^\((.*)\)=\n###", PAGE, re.MULTILINE))
    assert len(CALLS) == len(targets) == 6
    named = re.findall(r"\]\(([a-z-]+)\)", PAGE.split("## What they gave")[0])
    assert set(named) <= targets | {"shortest-path", "export"}
    assert len(named) == 7
    assert "\n(shortest-path)=\n## " in (ROOT / "notebooks/18_prune_your_model.md").read_text()


def test_networks_that_were_trained_for_different_times_have_no_one_time(monkeypatch):
    for last in (5, 7):
        steps = dict(zip(methods.NETWORKS, (5, 5, last), strict=True))
        found = {"networks": {name: {"steps": n} for name, n in steps.items()}}
        monkeypatch.setattr(
            results, "load", lambda name, found=found: (None, {"configuration": found})
        )
        if last == 5:
            assert methods.steps("units") == 5
        else:
            with pytest.raises(ValueError, match="unpack"):
                methods.steps("units")


def test_each_part_is_written_to_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "PARTS", {name: lambda name=name: name for name in methods.PARTS})
    methods.main()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        f"{n}.md": n for n in methods.PARTS
    }
