r"""Deployment: the files that a pruned network is shipped as, their sizes and their speed.

Of n weights, k of them not zero, a LiteRT file takes about

.. math:: 4n & \text{ bytes}, \\
          n & \text{ in 8-bit integers}, \\
          6k & \text{ with the sparse encoding},

a float and an index of two bytes for each weight; the first two masked or not, since zeros are
stored like other numbers, until the file is compressed.

The encoding has a surprise.  A kernel is stored in blocks of four weights if of the blocks at least
0.9 times as large a share is zero as of the weights (TensorFlow, `dense_to_sparse_pass`).  Of zeros
anywhere, a share s of the weights and :math:`s^4` of the blocks, that holds from s = 0.9655 on;
then a file takes about :math:`4.5\, n (1 - s^4)` bytes, more than :math:`6k` again.  Below s = 0.3
nothing is encoded.

A sparse file is smaller and no faster.  A network without whole units (see `units`) is both, in
every one of these files.
"""

import contextlib
import io
import pathlib
import re
import tempfile
import timeit
import warnings
import zipfile

from prosper_utils import quiet_stderr
from prosper_utils.pruning import masks
from prosper_utils.pruning.replacement import replaced

import keras
import numpy as np
import tensorflow as tf

QUANTISED = (None, "dynamic", "full")
LITE = {
    "LiteRT": {},
    "LiteRT sparse": {"sparse": True},
    "LiteRT dynamic int8": {"quantised": "dynamic"},
    "LiteRT int8": {"quantised": "full"},
    "LiteRT sparse int8": {"sparse": True, "quantised": "full"},
}
FORMS = (".keras", "SavedModel", *LITE)
EVERYWHERE = FORMS[: FORMS.index("LiteRT int8")]  # they load in every runtime, and need no inputs


# Files ------------------------------------------------------------------------------------------


def lite(model, *, sparse=False, quantised=None, representative=None):
    """Return a model as a LiteRT file, which phones and the small runtime run without TensorFlow.

    Its inputs and outputs are those of the model, floats also where it is quantised, and any
    number of examples fits (see `runner`).  A quantised file computes something else, and may be
    badly wrong without saying so, as where the activations are small beside the range of their
    function: compare with `agreement`.

    Args:
        model: a built Keras model with one input and one output; it is not changed.
        sparse: whether kernels with many zeros are stored as what is not zero and where.
        quantised: None for floats; `"dynamic"` for kernels in 8-bit integers, of layers that are
            large enough, with activations quantised on the fly; `"full"` for integers in all
            operations that have them, with ranges taken from `representative`.
        representative: inputs (N, ...) like those to come, a hundred or so; for `"full"` only.

    Returns:
        The content of the file, bytes.

    Raises:
        ValueError: for a model that is not built or has several inputs or outputs, an operation
            that the runtime does not have, `quantised="full"` without `representative` and the
            reverse, a file that the runtime installed here does not load, and `sparse` with
            `"dynamic"`, which none loads once a kernel is stored sparse.
    """
    _check(model)
    _check_options(model, sparse, quantised, representative)
    with _saved(model) as folder:
        return _converted(model, folder, sparse, quantised, representative)


def files(model, forms=None, *, representative=None):
    """Return the files of a model in several forms, as they are to be shipped.

    Masks, optimizer and what else is for training are left out: see `masks.strip`.

    Args:
        model: a built Keras model with one input and one output; it is not changed.
        forms: some of `FORMS`; by default all but `"LiteRT sparse int8"`, which not every runtime
            loads, and `"LiteRT int8"` only with `representative`.
        representative: as for `lite`.

    Returns:
        A dict from each form to a dict from names to contents, bytes; a SavedModel has several.

    Raises:
        ValueError: for an unknown form, and as `lite` does.
    """
    _check(model)
    forms = _chosen(forms, representative)
    for form in forms:
        options = LITE.get(form, {})
        given = representative if options.get("quantised") == "full" else None
        _check_options(model, options.get("sparse"), options.get("quantised"), given)
    found = {}
    with _saved(model) as folder:
        for form in forms:
            if form == ".keras":
                found[form] = {f"{model.name}.keras": _keras_file(model)}
            elif form == "SavedModel":
                paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
                found[form] = {str(p.relative_to(folder)): p.read_bytes() for p in paths}
            else:
                content = _converted(model, folder, representative=representative, **LITE[form])
                found[form] = {f"{model.name}.tflite": content}
    return found


def sizes(model, forms=None, *, representative=None):
    """Return how large the files of a model are, as they are and compressed (deflate, in a zip).

    Args:
        model, forms, representative: as for `files`.

    Returns:
        A dict from each form to a dict of the integers `"bytes"` and `"zipped"`.
    """
    held = files(model, forms, representative=representative)
    return {form: _size(contents) for form, contents in held.items()}


def _size(contents):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return {"bytes": sum(map(len, contents.values())), "zipped": len(buffer.getvalue())}


def _chosen(forms, representative):
    if forms is None:
        return EVERYWHERE if representative is None else (*EVERYWHERE, "LiteRT int8")
    unknown = [form for form in forms if form not in FORMS]
    if unknown or not forms or isinstance(forms, str):
        raise ValueError(f"forms: expected a list of some of {FORMS}, found {forms!r}")
    return tuple(forms)


def _check(model):
    """Raise a ValueError unless a model is built and has one input and one output."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: expected a Keras model, found {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"model {model.name!r}: expected a built model, found one without weights: "
            "call it on a batch, or give it an Input"
        )
    for what in ("inputs", "outputs"):
        found = getattr(model, what, None)
        if found is not None and len(found) != 1:
            names = ", ".join(tensor.name for tensor in found)
            raise ValueError(f"model {model.name!r}: expected one of its {what}, found {names}")


def _check_options(model, sparse, quantised, representative):
    if quantised not in QUANTISED:
        raise ValueError(f"quantised: expected one of {QUANTISED}, found {quantised!r}")
    if sparse and quantised == "dynamic":
        raise ValueError(
            "sparse: expected False with quantised='dynamic', found True: the runtime cannot load "
            "a sparse kernel in integers under floating-point activations"
        )
    if (quantised == "full") != (representative is not None):
        wanted = "inputs (N, ...)" if quantised == "full" else f"None with {quantised=}"
        found = "None" if representative is None else "some"
        raise ValueError(f"representative: expected {wanted}, found {found}")
    if isinstance(representative, tf.data.Dataset):
        raise ValueError(
            "representative: expected inputs (N, ...) as one array, found a tf.data.Dataset: take "
            "the inputs of a batch, such as next(iter(dataset))[0]"
        )
    if representative is not None:
        found = np.shape(representative)
        shapes = [x.shape for x in getattr(model, "inputs", None) or []]
        if not found or not found[0] or not all(_fits(found, shape) for shape in shapes):
            raise ValueError(f"representative: expected inputs of {shapes}, found {found}")


def _fits(shape, expected):
    """Return whether a shape is one of those expected, where None or -1 is any number."""
    if len(shape) != len(expected):
        return False
    pairs = zip(shape[1:], expected[1:], strict=True)
    return all(b in (None, -1, a) for a, b in pairs)


def _converted(model, folder, sparse=False, quantised=None, representative=None):
    """Return the LiteRT file of a SavedModel, once it has been loaded."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    kinds = tf.lite.Optimize
    converter.optimizations = [kinds.EXPERIMENTAL_SPARSITY] * sparse
    converter.optimizations += [kinds.DEFAULT] * (quantised is not None)
    if quantised == "full":
        inputs = getattr(model, "inputs", None)  # a model of a class of one's own has none
        examples = np.asarray(representative, inputs[0].dtype if inputs else model.input_dtype)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([x[None]] for x in examples)
    try:
        with quiet_stderr():
            content = converter.convert()
    except Exception as error:  # the converter's own class has no public name
        named = sorted(set(re.findall(r"'(tf\.\w+)'", str(error))))
        found = ", ".join(named) or " ".join(str(error).split())[:300]
        raise ValueError(
            f"model {model.name!r}: expected operations that LiteRT has, on types that it has, "
            f"found {found}"
        ) from error
    _try(content)
    return content


def _try(content):
    """Run a LiteRT file on one example of zeros; what does not load may say so only then."""
    (source, *_) = interpreter(content).get_input_details()
    run = runner(content)
    if -1 not in source["shape_signature"][1:]:
        try:
            run(np.zeros(source["shape"], source["dtype"]))
        except RuntimeError as error:
            raise _refused(error) from error


@contextlib.contextmanager
def _saved(model):
    """Hold a model as a SavedModel in a folder, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        logger = tf.get_logger()
        level = logger.level
        logger.setLevel("WARNING")  # it would name the folder, which is soon gone
        try:
            with replaced(keras.Layer, "__call__", _inferring(model)):
                model.export(folder, verbose=False)
        finally:
            logger.setLevel(level)
        yield pathlib.Path(folder)


def _inferring(model):
    """Return a `__call__` that runs the model as in inference.

    Keras' `export` does not say so to the layers (3.15), and those that augment images train then.
    """

    def call(original, layer, *args, **kwargs):
        if layer is model:
            kwargs["training"] = False
        return original(layer, *args, **kwargs)

    return call


def _keras_file(model):
    with _bare(model), tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.keras")
        model.save(path)
        return path.read_bytes()


@contextlib.contextmanager
def _bare(model):
    """Have a model without masks and optimizer, for a while."""
    constraints = [(v, getattr(v, "constraint", None)) for v in model.weights]
    masked = [(v, mask) for v, mask in constraints if isinstance(mask, masks.Mask)]
    names = ("optimizer", "compiled", "train_function")
    state = {name: getattr(model, name) for name in names if hasattr(model, name)}
    if masked:
        masks.strip(model)
    model.optimizer, model.compiled = None, False
    try:
        yield
    finally:
        for variable, mask in masked:
            masks.constrain(model, variable, mask)
        for name in names:
            setattr(model, name, state[name]) if name in state else delattr(model, name)


# Running a file ---------------------------------------------------------------------------------


def runtime():
    """Return the class that loads LiteRT files: of `ai_edge_litert` where it is installed.

    Otherwise it is TensorFlow's own, which is to go; the extra `lite` brings the other.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return tf.lite.Interpreter
    return Interpreter


def interpreter(content, *, threads=1):
    """Return a loaded LiteRT file, ready to run one example; see `runner` for more.

    If examples may have any size, it has to be told one first, by `resize_tensor_input`.

    Args:
        content: bytes, such as `lite` returns.
        threads: how many threads it may use.

    Raises:
        ValueError: if the runtime installed here does not load it.
    """
    kind = runtime()
    try:
        with warnings.catch_warnings(), quiet_stderr():
            warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
            loaded = kind(model_content=content, num_threads=threads)
            if not _any_size(loaded):
                loaded.allocate_tensors()
    except (RuntimeError, TypeError, ValueError) as error:
        raise _refused(error) from error
    return loaded


def _refused(error):
    """Return the error of a file that the runtime installed here does not run."""
    package = runtime().__module__.split(".")[0]
    return ValueError(
        f"content: expected a LiteRT file that {package} loads, found one it refuses: {error}"
    )


def _any_size(loaded):
    """Return whether more than the number of examples is open."""
    return any(-1 in part["shape_signature"][1:] for part in loaded.get_input_details())


def runner(content, *, threads=1):
    """Return the function that a LiteRT file computes: inputs (B, ...) -> outputs (B, ...).

    It takes any B, and is slow only where B differs from the one before.  Calls must not overlap.

    Args:
        content, threads: as for `interpreter`.

    Raises:
        ValueError: as `interpreter` does, and for a file with several inputs or outputs, or ones
            in integers that stand for floats; later for inputs that do not fit.
    """
    loaded = interpreter(content, threads=threads)
    source = _only("input", loaded.get_input_details())
    target = _only("output", loaded.get_output_details())
    expected = tuple(source["shape_signature"].tolist())
    now = None if _any_size(loaded) else tuple(source["shape"].tolist())

    def run(x):
        nonlocal now
        x = np.asarray(x)
        if not _fits(x.shape, expected) or not np.can_cast(x.dtype, source["dtype"], "same_kind"):
            wanted = f"{np.dtype(source['dtype'])} of shape {expected}"
            raise ValueError(f"x: expected {wanted}, found {x.dtype} of shape {x.shape}")
        if x.shape != now:
            loaded.resize_tensor_input(source["index"], x.shape)
            loaded.allocate_tensors()
            now = x.shape
        loaded.set_tensor(source["index"], x.astype(source["dtype"], copy=False))
        loaded.invoke()
        return loaded.get_tensor(target["index"])

    return run


def _only(what, details):
    if len(details) != 1:
        names = ", ".join(part["name"] for part in details)
        raise ValueError(f"content: expected one {what}, found {len(details)}: {names}")
    if details[0]["quantization_parameters"]["scales"].size:
        raise ValueError(f"content: expected an {what} in floats, found one that is quantised")
    return details[0]


def predict(content, x, *, batch=256, threads=1):
    """Return the outputs (N, ...) of a LiteRT file for inputs (N, ...), so many at a time.

    Raises:
        ValueError: for no inputs, and as `runner` does.
    """
    return _in_batches(runner(content, threads=threads), x, batch)


def _in_batches(run, x, batch=256):
    x = np.asarray(x)
    if not x.size:
        raise ValueError(f"x: expected at least one input, found shape {x.shape}")
    return np.concatenate([np.asarray(run(x[i : i + batch])) for i in range(0, len(x), batch)])


def agreement(model, content, x, *, batch=256):
    """Return of how many inputs a LiteRT file and the Keras model predict the same class.

    Args:
        model: the Keras model, run as in inference.
        content: bytes, such as `lite` returns.
        x: inputs (N, ...).

    Returns:
        (how many predictions agree, how many there are).

    Raises:
        ValueError: for outputs that are not scores (N, ..., classes) of two classes or more, or
            not finite.
    """
    expected = np.asarray(_predicted(_in_batches(_in_keras(model), x, batch)))
    found = np.asarray(_predicted(predict(content, x, batch=batch)))
    return int(np.sum(expected == found)), expected.size


def _predicted(outputs):
    """Return the class with the largest output."""
    if outputs.ndim < 2 or outputs.shape[-1] < 2:
        raise ValueError(
            f"outputs: expected those of two classes or more, found shape {outputs.shape}"
        )
    if not np.all(np.isfinite(outputs)):
        raise ValueError("outputs: expected finite numbers, found NaN or infinite ones")
    return np.argmax(outputs, axis=-1)


def _in_keras(model):
    return lambda x: model(x, training=False)


# Times ------------------------------------------------------------------------------------------


def latency(functions, x, *, repeats=20, number=1):
    """Return how long functions take on the same inputs, called in turn in one run.

    In every round each of them has its turn, so that what else the machine does meets all alike:
    first a call that does not count, since it may compile and fills the caches, then those that do.

    Args:
        functions: a dict from names to functions of x.
        x: the inputs, (B, ...); the times are those of the whole batch.
        repeats: how many rounds.
        number: how many calls make one measurement, which is their mean.

    Returns:
        A dict from names to dicts of `"median"`, `"low"` and `"high"`, the quartiles, in seconds.

    Raises:
        ValueError: for no functions, or fewer than one round or call.
    """
    if not functions or min(repeats, number) < 1:
        raise ValueError(
            "latency: expected some functions, repeats >= 1 and number >= 1, found "
            f"{len(functions)} functions, {repeats=}, {number=}"
        )
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            keras.tree.map_structure(np.asarray, function(x))  # waits for what it returns
            times[name].append(_seconds(function, x, number))
    quartiles = {name: np.quantile(found, (0.25, 0.5, 0.75)) for name, found in times.items()}
    keys = ("low", "median", "high")
    return {name: dict(zip(keys, q.tolist(), strict=True)) for name, q in quartiles.items()}


def _seconds(function, x, number):
    """Return the mean time of so many calls, until their values are there."""
    timer = timeit.Timer(lambda: keras.tree.map_structure(np.asarray, function(x)))
    return timer.timeit(number) / number


def table(
    models,
    x,
    labels=None,
    *,
    forms=None,
    representative=None,
    batches=(1, 256),
    repeats=20,
    threads=1,
):
    """Return the size, speed and faithfulness of several models, each in several forms.

    A row's times are those of its form: `model(x, training=False)` for `".keras"`, the same under
    `tf.function` for `"SavedModel"`, and the file itself for LiteRT.  Keras uses the threads that
    TensorFlow was started with, LiteRT the number given here.

    Args:
        models: a dict from names to models as `lite` takes them; they are not changed.
        x: inputs (N, ...), on all of which predictions are compared.  Of them each batch is taken,
            again from the first where there are too few.
        labels: classes (N,), or None.
        forms, representative: as for `files`.
        batches: the batch sizes to time.
        repeats: as for `latency`.
        threads: how many threads LiteRT may use.

    Returns:
        Rows, a list of dicts, and the same as a text (see `as_text`).  A row has `model` and
        `form`; `bytes` and `zipped`; for each batch size B the times `seconds_B`, with quartiles
        `low_B` and `high_B`; `agree`, the share of x with the class that the model predicts in
        Keras, and `accuracy` if there are labels.  `smaller`, `smaller_zipped` and `faster_B` are
        ratios: how many times smaller and faster than the first model in the same form.

    Raises:
        ValueError: for no models or inputs, other numbers of inputs and labels, and as `files`,
            `latency` and `agreement` do.
    """
    x = np.asarray(x)
    _check_table(models, x, labels, batches)
    held = {name: files(m, forms, representative=representative) for name, m in models.items()}
    runs = {
        (name, form): _run(models[name], form, contents, threads)
        for name, found in held.items()
        for form, contents in found.items()
    }
    taken = {b: x[np.arange(b) % len(x)] for b in batches}
    times = {b: latency(runs, taken[b], repeats=repeats) for b in batches}
    rows = []
    for name, found in held.items():
        expected = _predicted(_in_batches(_in_keras(models[name]), x))
        for form, contents in found.items():
            timed = {b: times[b][name, form] for b in batches}
            classes = _predicted(_in_batches(runs[name, form], x))
            row = {"model": name, "form": form} | _size(contents) | _flat(timed)
            row["agree"] = float(np.mean(classes == expected))
            if labels is not None:
                row["accuracy"] = float(np.mean(classes == np.asarray(labels)))
            rows.append(row)
    _compare(rows, batches)
    return rows, as_text(rows)


def _flat(times):
    """Return the median and the quartiles of every batch size in one dict."""
    names = {"median": "seconds", "low": "low", "high": "high"}
    return {f"{names[key]}_{b}": t for b, time in times.items() for key, t in time.items()}


def _check_table(models, x, labels, batches):
    if not models or not x.size or not batches or min(batches) < 1:
        raise ValueError(
            "table: expected some models, inputs and batch sizes, found "
            f"{len(models)} models, x of shape {x.shape} and batches {tuple(batches)}"
        )
    if labels is not None and np.shape(labels) != x.shape[:1]:
        raise ValueError(f"labels: expected shape {x.shape[:1]}, found {np.shape(labels)}")


def _run(model, form, contents, threads):
    """Return the function of inputs that a form of a model is timed by."""
    if form == ".keras":
        return _in_keras(model)
    if form == "SavedModel":
        return tf.function(_in_keras(model))
    (content,) = contents.values()
    return runner(content, threads=threads)


def _compare(rows, batches):
    """Give every row its ratios to the first model's row of the same form."""
    first = {row["form"]: row for row in reversed(rows)}
    pairs = {"smaller": "bytes", "smaller_zipped": "zipped"}
    pairs |= {f"faster_{b}": f"seconds_{b}" for b in batches}
    for row in rows:
        row |= {ratio: first[row["form"]][of] / row[of] for ratio, of in pairs.items()}


def as_text(rows):
    """Return the rows of `table` as a text table: kB, ms with their quartiles, and ratios."""
    sizes_of = [key.removeprefix("seconds_") for key in rows[0] if key.startswith("seconds_")]
    head = ["model", "form", "kB", "smaller", "zipped", "smaller"]
    head += [part for b in sizes_of for part in (f"ms for {b}", "(quartiles)", "faster")]
    head += [key for key in ("agree", "accuracy") if key in rows[0]]
    lines = [head]
    for row in rows:
        line = [row["model"], row["form"]]
        for key, ratio in (("bytes", "smaller"), ("zipped", "smaller_zipped")):
            line += [f"{row[key] / 1000:,.1f}", f"{row[ratio]:.1f}x"]
        for b in sizes_of:
            low, mid, high = (1000 * row[f"{key}_{b}"] for key in ("low", "seconds", "high"))
            line += [f"{mid:.3g}", f"({low:.3g}-{high:.3g})", f"{row[f'faster_{b}']:.1f}x"]
        lines.append(line + [f"{row[key]:.2%}" for key in head if key in ("agree", "accuracy")])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def aligned(line):
        pairs = zip(line, widths, "<<" + ">" * len(line[2:]), strict=True)
        return "  ".join(f"{cell:{side}{width}}" for cell, width, side in pairs)

    return "\n".join(aligned(line).rstrip() for line in lines)
