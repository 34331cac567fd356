"""The sweep of streamed scores: what a row says, and what an interrupted one goes on with."""

import functools
import itertools
import json
import math
import runpy
import sys
import types

from prosper_utils.lookahead import streaming
from prosper_utils.lookahead.descent import hessian_product
from prosper_utils.lookahead.meta_gradient import cotangents, meta_gradient
from prosper_utils.pruning import networks
from prosper_utils.study import datasets, results
from prosper_utils.study.checks import relative_error

import keras
import numpy as np
import pytest
import sweep_streaming
import tensorflow as tf
from conftest import clock

SMALL = functools.partial(networks.dense_300_100, units=(6, 5), dtype="float64")


@pytest.fixture(scope="module")
def listed(digits):
    """The rows of one short trajectory of a small network in double precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep_streaming, "NETWORKS", {"small": SMALL})
        patch.setattr(sweep_streaming, "LOOKAHEADS", (1, 3))
        return sweep_streaming.errors_of("small", "relu", 1e-3, 1, digits.train)


def test_a_row_of_errors_compares_a_score_of_its_case_with_the_exact_one(listed, digits):
    weights, loss = networks.as_loss(SMALL("relu", seed=1))
    ours, others = (
        list(itertools.islice(datasets.batches(digits.train, 128, seed=s), 2)) for s in (2, 3)
    )
    run = functools.partial(meta_gradient, loss, weights, learning_rate=1e-3)
    exact = run(ours, method="unrolled")
    rows = {row["score"]: row for row in listed if row["steps"] == 1}
    for score, found in {
        "row sums": run(ours, method="row_sums"),
        "Hutchinson, 10": streaming.streamed(
            loss, weights, ours, 1e-3, streaming.hutchinson(10, 1)
        ),
        "other batches": run(others, method="unrolled"),
    }.items():
        row = rows[score]
        assert list(row) == list(results.load("streaming_errors")[0])
        case = {"network": "small", "activation": "relu", "alpha": 1e-3, "seed": 1}
        assert row.items() >= case.items()
        expected = {"error": relative_error(found, exact)}
        expected |= sweep_streaming.likeness(found, exact, [0, 2, 4])
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_the_error_is_to_first_order_what_is_predicted(listed):
    found = {(row["steps"], row["score"]): row for row in listed}
    predicted = {key for key, row in found.items() if row["predicted"] is not None}
    streamed = ("row sums", "diagonal", "Hutchinson, 1", "Hutchinson, 10", "first order")
    assert predicted == {(m, score) for m in (1, 3) for score in streamed}
    for key in predicted:
        assert found[key]["error"] == pytest.approx(found[key]["predicted"], rel=0.05)
    for m in (1, 3):
        exact = found[m, "reverse"]
        assert exact["error"] < 1e-10
        assert exact["cosine"] == pytest.approx(1)
        assert exact["iou_98"] == 1
        assert found[m, "other batches"]["error"] > 1e-3


def test_the_likeness_of_scores_by_hand():
    """Signs and weights without a mask count in the cosine; a layer counts as often as it has."""
    exact = [np.arange(1.0, 301), np.ones(2), np.array([301.0, 0.5])]
    other = [np.where(exact[0] > 285, 0.0, -exact[0]), np.ones(2), exact[2]]
    kernels = [0, 2]
    found = sweep_streaming.likeness(other, exact, kernels)
    a, b = np.concatenate(other), np.concatenate(exact)
    assert found["cosine"] == pytest.approx(a @ b / np.sqrt(a @ a * (b @ b)))
    assert found["cosine"] < 0
    # At 90% are kept 271 to 301, and 256 to 285 with 301; at 99% three beside the 301.
    assert found["iou_90"] == 16 / 46
    assert found["iou_99"] == 1 / 7
    found = sweep_streaming.likeness([-part for part in exact], exact, kernels)
    assert found == {
        "cosine": pytest.approx(-1),
        "iou_90": 1,
        "iou_95": 1,
        "iou_98": 1,
        "iou_99": 1,
    }


def test_scores_that_are_not_streamed_are_what_they_are_called(monkeypatch):
    given = {"learning_rate": 0.1}
    monkeypatch.setattr(sweep_streaming, "meta_gradient", lambda *args, **options: (args, options))
    scores = {}
    exact = sweep_streaming.add_exact(scores, "loss", "weights", "batches", "others", 0.1)
    ours = "loss", "weights", "batches"
    assert exact == (ours, given | {"method": "unrolled"})
    assert scores == {
        "first order": (ours, given | {"method": "first_order"}),
        "reverse": (ours, given | {"method": "reverse"}),
        "other batches": (("loss", "weights", "others"), given),
    }


def test_what_is_said_of_a_product_by_hand():
    g, initial = [np.array([2.0, 0.5]), np.array([1.0])], [np.array([1.0, -3.0]), np.array([0.25])]
    gamma = [np.array([1e3, -1e-46]), np.array([1e39])]
    logs = [np.log(np.abs(part)) for part in gamma]
    found = sweep_streaming.spread(logs, [np.sign(part) for part in gamma], initial, g)
    score = np.concatenate([w * p * q for w, p, q in zip(initial, gamma, g, strict=True)])
    assert found["streamed"] == pytest.approx(np.log10(np.linalg.norm(score)))
    assert found["underflow"] == found["overflow"] == found["negative"] == 1 / 3
    assert found["lowest"] == np.log(1e-46)
    assert found["q50"] == np.log(1e3)
    assert found["highest"] == np.log(1e39)


@pytest.fixture
def command(tmp_path, monkeypatch, digits):
    """The command, with cases that are done in no time; it returns those that it ran."""
    ran = []

    def one(n, train):
        ran.append(n)
        return [{"n": n, "images": len(train)}]

    def run():
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["sweep_streaming.py"])
        sweep_streaming.main()
        return [*ran]

    cases = [{"n": n} for n in range(3)]
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(datasets, "load", lambda: digits)
    monkeypatch.setattr(sweep_streaming, "SWEEPS", {"growth": (one, lambda: [*cases])})
    return types.SimpleNamespace(run=run, cases=cases)


def test_it_goes_on_with_the_cases_that_are_not_stored(command, digits):
    del command.cases[1:]
    assert command.run() == [0]
    path = results.FOLDER / "streaming_growth.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 1000.0}))
    command.cases += [{"n": 1}, {"n": 2}]
    assert command.run() == [1, 2]
    table, provenance = results.load("streaming_growth")
    assert table.n.tolist() == [0, 1, 2]
    assert set(table.images) == {len(digits.train)}
    assert 1000 <= provenance["seconds"] < 1500
    assert provenance["configuration"]["cases"] == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("name", ["POOL", "BATCH_SIZE", "LONG"])
def test_no_rows_are_added_to_those_of_other_settings(command, monkeypatch, name):
    assert command.run() == [0, 1, 2]
    monkeypatch.setattr(sweep_streaming, name, 7)
    assert command.run() == []  # nothing is left that could be mixed
    command.cases.append({"n": 3})
    before = results.load("streaming_growth")
    with pytest.raises(ValueError, match="streaming_growth: expected the configuration"):
        command.run()
    after = results.load("streaming_growth")
    assert before[0].equals(after[0])
    assert before[1] == after[1]


@pytest.mark.parametrize("what", sweep_streaming.SWEEPS)
def test_what_is_stored_is_of_the_present_settings(what, digits):
    """But for the data set, which the machine may not have."""
    stored = results.load(f"streaming_{what}")[1]["configuration"]
    now = json.loads(json.dumps(sweep_streaming.configuration(what, digits)))
    for each in (stored, now):
        for key in ("data", "sha256", "cases"):
            each.pop(key, None)
    assert stored == now


def test_slow_descent_turns_no_sign(monkeypatch, digits):
    """Of the diagonal, whose entries are at most the largest eigenvalue."""
    monkeypatch.setattr(sweep_streaming, "LONG", (1, 3))
    monkeypatch.setattr(sweep_streaming, "POOL", 2)
    found = sweep_streaming.growth_of("tanh", 0.1, digits.train)
    slow = {row["steps"]: row for row in found if row["gamma"] == "diagonal"}
    for m, row in slow.items():
        assert row["negative"] == row["underflow"] == row["overflow"] == 0
        assert m * np.log(0.85) < row["lowest"] <= row["highest"] < m * np.log(1.15)
        assert row["sharpness"] == pytest.approx(0.1)
        assert row["finite"]


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("errors", "LOOKAHEADS"),
        ("errors", "SPARSITIES"),
        ("errors", "BATCH_SIZE"),
        ("growth", "POOL"),
        ("growth", "LONG"),
        ("growth", "BATCH_SIZE"),
    ],
)
def test_what_determines_the_results_is_in_the_configuration(monkeypatch, digits, what, name):
    before = sweep_streaming.configuration(what, digits)
    monkeypatch.setattr(sweep_streaming, name, "changed")
    assert sweep_streaming.configuration(what, digits) != before


def test_what_is_measured_is_measured_in_double_precision():
    found = sweep_streaming.flat([np.float32([[1e30, 0.1]]), np.float32([2.0])])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.float64(np.float32([1e30, 0.1, 2.0])))
    assert np.isfinite(np.linalg.norm(found))


def test_the_curvature_of_lenet5_is_the_gauss_newton_part_of_its_logits(monkeypatch, digits):
    monkeypatch.setattr(streaming, "gauss_newton_diagonal", lambda logits: logits)
    model, images = networks.lenet5(seed=1), digits.test[0][:3]
    name, logits = sweep_streaming.exact_diagonal(model)
    assert name == "Gauss-Newton"
    found = logits([v.value for v in model.trainable_variables], images)
    np.testing.assert_allclose(found, model(images), atol=1e-5)


def test_the_curvature_of_the_dense_network_is_the_whole_diagonal(digits):
    """Of a tanh network the Gauss-Newton part, which leaves out second derivatives, is another."""
    model = networks.dense_300_100("tanh", units=(5, 4), seed=1)
    weights, loss = networks.as_loss(model)
    name, curvature = sweep_streaming.exact_diagonal(model)
    assert name == "diagonal"
    batch = tuple(part[:20] for part in digits.train)
    found = curvature(loss, weights, batch)[2:]  # of the first layer there are too many
    exact = streaming.diagonal(lambda w, b: loss([*weights[:2], *w], b), weights[2:], batch)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_networks_are_what_they_are_called():
    built = {"LeNet-300-100": networks.dense_300_100, "LeNet-5": networks.lenet5}
    assert built == sweep_streaming.NETWORKS


def test_the_eigenvalue_of_largest_size_may_be_negative_and_have_no_share_of_ones():
    """H has the eigenvalues -5 along (1, -1, 0), 3 along (1, 1, 0) and 2 along (0, 0, 1)."""
    matrix = np.array([[-1.0, 4, 0], [4, -1, 0], [0, 0, 2]])
    weights = [tf.zeros(2, tf.float64), tf.zeros((1, 1), tf.float64)]

    def product(w, v):
        assert w is weights
        image = matrix @ np.concatenate([np.ravel(part) for part in v])
        return [tf.constant(image[:2]), tf.constant(image[2:, None])]

    assert sweep_streaming.largest_eigenvalue(product, weights) == pytest.approx(-5)


def test_a_norm_is_stored_by_its_logarithm_to_base_10():
    found = sweep_streaming.log_norm([np.float32([[30.0]]), np.float32([40.0, 1e3])])
    assert found == pytest.approx(math.log10(math.sqrt(900 + 1600 + 1e6)))
    assert sweep_streaming.log_norm([np.zeros(3)]) == -math.inf


def test_quantiles_and_shares_are_stored_under_their_names():
    """Single precision holds 1.4e-45, the exponential of -103.28, to that of 88.72."""
    ones = [np.ones(101)]
    found = sweep_streaming.spread([np.arange(101.0) / 2], ones, ones, ones)
    names = ("lowest", "q01", "q50", "q99", "highest")
    assert [found[name] for name in names] == pytest.approx([0, 0.5, 25, 49.5, 50])
    logs = [np.array([-104.0, -103.4, -103.2, -1, -1]), np.array([88.6, 88.8, 89.0, 0, 2])]
    logs[0][-1] = -110
    signs = [np.array([-1.0, 0, 1, 1, 1]), np.ones(5)]
    two = [np.ones(5), np.ones(5)]
    found = sweep_streaming.spread(logs, signs, two, two)
    shares = ("underflow", "overflow", "negative")
    assert [found[name] for name in shares] == pytest.approx([0.3, 0.2, 0.1])


@pytest.mark.parametrize("full", [False, True])
def test_a_row_of_growth_says_what_the_package_finds_for_its_case(monkeypatch, digits, full):
    """After three steps on two batches, on a smaller network; a sum stands for the eigenvalue."""
    build, asked = networks.dense_300_100, []

    def smaller(activation, **options):
        asked.append((activation, options))
        return build(activation, units=(4, 3), dtype="float64")

    def largest(product, weights):
        return float(sum(tf.reduce_sum(h**2) for h in product(weights, [w + 1 for w in weights])))

    monkeypatch.setattr(networks, "dense_300_100", smaller)
    monkeypatch.setattr(sweep_streaming, "LONG", (3,))
    monkeypatch.setattr(sweep_streaming, "POOL", 2)
    monkeypatch.setattr(sweep_streaming, "largest_eigenvalue", largest)
    activation, sharpness = ("tanh", None) if full else ("relu", 2.5)
    more = {"full": True} if full else {}
    by_sums, by_diagonal = sweep_streaming.growth_of(activation, sharpness, digits.train, **more)
    assert asked == [(activation, {} if full else {"units": (30, 10), "dtype": "float64"})]

    model = build(activation, units=(4, 3), dtype="float64")
    initial, loss = networks.as_loss(model)
    drawn = itertools.islice(datasets.batches(digits.train, 128, seed=0), 3)
    first, second, outer = [(tf.cast(x, tf.float64), y) for x, y in drawn]
    batches = [first, second, first, outer]
    product = functools.partial(hessian_product, loss)
    at_first = largest(lambda w, v: product(w, first, v), initial)
    rate = 0.1 if full else 2.5 / at_first
    ends = cotangents(loss, initial, batches, learning_rate=rate, method="unrolled")
    run = functools.partial(meta_gradient, loss, initial, batches, learning_rate=rate)
    small, size = run(method="first_order"), sweep_streaming.log_norm
    expected = {
        "network": "LeNet-300-100" if full else "784-30-10-10",
        "activation": activation,
        "sharpness": rate * at_first,
        "alpha": rate,
        "steps": 3,
        "loss": float(loss(ends.weights, outer)),
        "finite": True,
        "sharpness_now": rate * largest(lambda w, v: product(w, first, v), ends.weights),
        "gradient": size(ends.last),
        "pulled": size(ends.first),
        "exact": size(run(method="unrolled")),
        "first_order": size(small),
    }
    by_its_diagonal = streaming.dense_diagonal(model)
    for row, gamma, score in (
        (by_sums, "row sums", run(method="row_sums")),
        (
            by_diagonal,
            "diagonal",
            streaming.streamed(loss, initial, batches, rate, by_its_diagonal),
        ),
    ):
        assert list(row) == list(results.load("streaming_growth")[0])
        wanted = expected | {"gamma": gamma, "streamed": size(score)}
        for name, value in wanted.items():
            number = isinstance(value, float)
            assert row[name] == (pytest.approx(value, rel=1e-6) if number else value), name
        turned = np.mean(sweep_streaming.flat(score) * sweep_streaming.flat(small) < 0)
        assert row["negative"] >= turned


def test_every_case_is_in_the_sweeps():
    run = {"errors": sweep_streaming.errors_of, "growth": sweep_streaming.growth_of}
    assert {what: work for what, (work, _) in sweep_streaming.SWEEPS.items()} == run
    for what, (_, cases) in sweep_streaming.SWEEPS.items():
        stored = results.load(f"streaming_{what}")[1]["configuration"]["cases"]
        assert sorted(map(str, cases())) == sorted(map(str, stored))


@pytest.mark.parametrize("what", sweep_streaming.SWEEPS)
def test_a_configuration_names_the_data(digits, what):
    found = sweep_streaming.configuration(what, digits)
    assert found["data"] == "digits"
    assert found.items() >= datasets.fingerprint(digits).items()


@pytest.mark.parametrize(
    ("said", "names"),
    [([], ["errors", "growth"]), (["growth"], ["growth"]), (["errors"], ["errors"])],
)
def test_the_sweeps_named_are_run_and_both_if_none_is(command, monkeypatch, digits, said, names):
    ran = []

    def work(train, what):
        assert train is digits.train
        ran.append(what)
        return [{"what": what}]

    sweeps = {what: (work, lambda what=what: [{"what": what}]) for what in ("errors", "growth")}
    monkeypatch.setattr(sweep_streaming, "SWEEPS", sweeps)
    monkeypatch.setattr(sys, "argv", ["sweep_streaming.py", *said])
    sweep_streaming.main()
    assert ran == names
    assert {path.stem for path in results.FOLDER.iterdir()} == {f"streaming_{n}" for n in names}
    for what in names:
        table, provenance = results.load(f"streaming_{what}")
        assert table.what.tolist() == [what]
        settings = json.loads(json.dumps(sweep_streaming.configuration(what, digits)))
        assert provenance["configuration"] == settings | {"cases": [{"what": what}]}


def test_each_case_is_stored_as_it_is_done_with_its_seconds(command, monkeypatch):
    """Two cases of 20 seconds, then one that fails; the next run begins with that."""
    cleared, spend = [], clock(monkeypatch, sweep_streaming)
    monkeypatch.setattr(keras.backend, "clear_session", lambda: cleared.append(1))

    def work(n, train):
        if n == 2:
            raise ZeroDivisionError
        return spend(20, [{"n": n}, {"n": 10 + n}])

    monkeypatch.setattr(sweep_streaming, "SWEEPS", {"growth": (work, lambda: command.cases)})
    with pytest.raises(ZeroDivisionError):
        command.run()
    table, provenance = results.load("streaming_growth")
    assert table.n.tolist() == [0, 10, 1, 11]
    assert provenance["seconds"] == 40
    assert provenance["configuration"]["cases"] == [{"n": 0}, {"n": 1}]
    assert len(cleared) == 2, "the graphs of a case are not kept for the next"


def test_it_is_a_command(monkeypatch, capsys, digits):
    monkeypatch.setattr(datasets, "load", lambda: digits)
    monkeypatch.setattr(sys, "argv", ["sweep_streaming.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(sweep_streaming.__file__, run_name="__main__")
    assert stopped.value.code == 0
    assert "How far streamed scores are from the meta-gradient" in capsys.readouterr().out


def test_masks_are_compared_as_they_are_made_over_all_layers():
    """Of 20 weights 2 are kept, wherever they are: the last two, and not one of each layer."""
    a, b = ([part, np.arange(10.0, 20)] for part in (np.arange(10.0), np.arange(10.0)[::-1]))
    assert sweep_streaming.overlap(a, b, 0.9) == 1
    b[1][0] = 30.0
    assert sweep_streaming.overlap(a, b, 0.9) == 1 / 3


def test_a_curvature_is_traced_once_for_all_weights():
    traced = []
    found = sweep_streaming.compiled(
        lambda loss, weights, batch: traced.append(loss) or [w * batch for w in weights], "loss"
    )
    for w in (2.0, 3.0):
        (product,) = found([tf.constant([w])], tf.constant(5.0))
        assert product.numpy().tolist() == [5 * w]
    assert traced == ["loss"]
