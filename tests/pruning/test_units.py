"""Units: the small network computes what the large one does without the readers of what is gone."""

import collections
import contextlib
import functools
import re

from prosper_utils.pruning import channels, masks, optimizers, units
from prosper_utils.pruning.networks import dense_300_100, kernels, lenet5

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_channels import attending, build, chain, in_double, mixed, residual
from test_networks import Subclassed
from test_optimizers import EVERY

layers = keras.layers


def concatenating():
    x = inputs = keras.Input((6, 6, 2), name="images")
    for name in "abc":
        y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name=name)(x))
        x = layers.Concatenate()([x, layers.Activation(lambda z: z + 1, name=f"{name}_1")(y), x])
        x = layers.Conv2D(5, 1, activation="swish", name=f"{name}_2")(x)
    x = layers.Reshape((6 * 6 * 5,))(layers.MaxPooling2D(1)(x))
    return keras.Model({"images": inputs}, {"a": layers.Dense(2)(x), "b": layers.Dense(1)(x)})


def reshaping():
    """Dense to images and back, and a block that is used twice."""
    block = keras.Sequential([keras.Input((5, 5, 4)), layers.Conv2D(4, 3, padding="same")])
    x = inputs = keras.Input((7,))
    x = layers.Reshape((5, 5, 4))(layers.Dense(100, "sigmoid")(x))
    x = keras.ops.reshape(block(layers.ReLU()(block(x))), (-1, 25, 4))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv1D(6, 3)(x))))


def moving():
    """What moves and thins out: strides, dilation, transposed, depthwise, separable, grouped."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.PReLU(shared_axes=(1, 2))(layers.Conv2D(4, 3, 2, padding="same")(x))
    x = layers.Conv2DTranspose(6, 3, 2, padding="same", activation="elu")(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=2, dilation_rate=2)(x)
    x = layers.GroupNormalization(6, scale=False, center=False)(x)
    x = layers.SeparableConv2D(6, 3, 2, depth_multiplier=3, padding="same")(x)
    x = layers.UpSampling2D()(layers.Conv2D(12, 1, groups=6, activation="tanh")(x))
    x = layers.SpatialDropout2D(0.0)(layers.Conv2D(4, 3, groups=2, dilation_rate=2)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def volumes():
    x = inputs = keras.Input((6, 6, 6, 2))
    x = layers.Conv3D(4, 3, 2, padding="same", activation="tanh")(x)
    x = layers.BatchNormalization()(layers.Conv3DTranspose(3, 2, 2)(x))
    x = layers.Cropping3D()(layers.UpSampling3D()(x))
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling3D()(x)))


def words():
    """Rows of words of unequal length, by their embeddings."""
    x = inputs = keras.Input((9,), dtype="int32")
    x = embedded = layers.Embedding(7, 6, mask_zero=True)(x)
    x = layers.SeparableConv1D(5, 3, padding="same", depth_multiplier=2)(x)
    x = layers.Conv1DTranspose(4, 2, padding="same", activation="silu")(x)
    x = layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same")(x)
    x = layers.Conv1D(6, 2, padding="causal", dilation_rate=3, activation="softplus")(x)
    means = [layers.GlobalAveragePooling1D()(y) for y in (x, embedded)]
    x = layers.Concatenate()([*means, layers.GlobalMaxPooling1D()(x)])
    return keras.Model(inputs, layers.Dense(3)(x))


def grouped(rank):
    """Convolutions in groups of one channel each, and of two, whose kernels have one entry."""
    convolution = getattr(layers, f"Conv{rank}D")
    x = inputs = keras.Input((5,) * rank + (3,))
    x = convolution(8, 3, groups=4)(convolution(4, 1)(x))
    x = convolution(6, 1, groups=2, activation="tanh")(x)
    mean = getattr(layers, f"GlobalAveragePooling{rank}D")()
    return keras.Model(inputs, layers.Dense(2)(mean(x)))


def shared():
    """A layer that is called three times, and models in models whose layers have one name."""
    inputs = keras.Input((5,), name="same")
    twice = layers.Dense(6, "tanh", name="twice")
    outer = [layers.Dense(6)(inputs) for _ in range(2)]
    x = layers.Concatenate()([twice(outer[0]), twice(outer[1]), twice(twice(outer[1]))])
    x = layers.Concatenate()([x, x])
    for name in ("a", "b"):
        inner = keras.Input(x.shape[1:])
        y = layers.Dense(7, "softsign", name="same")(inner)
        y = keras.Sequential([keras.Input((7,)), layers.Dense(4, name="same")], name="inside")(y)
        x = keras.Model(inner, [y, layers.Dense(4, name="other")(inner)], name=name)(x)
        x = layers.Subtract()([2.0 * x[0], x[1]])
    return keras.Model(inputs, layers.Dense(2)(x))


NETWORKS = [residual, mixed, attending, chain, concatenating, reshaping]
NETWORKS += [moving, volumes, words, shared]
NETWORKS += [functools.partial(grouped, rank) for rank in (1, 2, 3)]


def some(model, share=0.6, seed=1):
    """Return what to keep: what is fixed, and a share of the rest."""
    generator = np.random.default_rng(seed)
    return [bool(g.fixed) or generator.random() < share for g in channels.groups(model)]


def examples(model, count=8, seed=2):
    generator, (first, *_) = np.random.default_rng(seed), model.inputs
    shape = (count, *first.shape[1:])
    whole = first.dtype.startswith("int")
    return generator.integers(0, 7, shape) if whole else generator.normal(size=shape)


def outputs(model, x, training):
    x = {"images": x} if model.inputs[0].name == "images" else x
    found = keras.tree.flatten(model(x, training=training))
    return np.concatenate([y.numpy().reshape(len(y), -1) for y in found], axis=1)


@contextlib.contextmanager
def held_at_zero(model, unread):
    """Hold what reads the groups that go at zero for a while."""
    before = [kernel.numpy() for kernel in kernels(model)]
    for kernel, mask in zip(kernels(model), unread, strict=True):
        kernel.assign(kernel * mask)
    yield
    for kernel, value in zip(kernels(model), before, strict=True):
        kernel.assign(value)


@pytest.mark.parametrize("make", NETWORKS)
def test_the_small_network_is_the_masked_one(make):
    model = in_double(make)
    keep, x = some(model), examples(model)
    before = model.get_weights()
    small = units.shrink(model, keep)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert small.count_params() < 0.9 * model.count_params()
    assert_alike(model, small, units.unread(model, keep), x)


def assert_alike(model, small, unread, x):
    """Assert that two models agree to 1e-12 of the spread over images, and in no trivial way."""
    for training in (False, True):  # the second moves the statistics, and does not use them
        whole, found = (outputs(each, x, training) for each in (model, small))
        with held_at_zero(model, unread):
            expected = outputs(model, x, training)
        spread = np.std(expected, axis=0)
        assert np.min(spread) > 0
        assert np.max(np.abs(found - expected) / spread) < 1e-12
        assert np.max(np.abs(expected - whole) / spread) > 1e-3


def test_a_tiny_network_by_hand():
    """Of three units the second goes; what says so may be read once only."""
    model = build((2,), layers.Dense(3), layers.Dense(2))
    weights = [np.arange(6).reshape(2, 3), [6, 7, 8], np.arange(9, 15).reshape(3, 2), [15, 16]]
    model.set_weights([np.array(w, "float32") for w in weights])
    keep = [True, True, True, False, True, True, True]
    masked = units.unread(model, iter(keep))
    assert [mask.dtype for mask in masked] == [bool, bool]
    assert [mask.tolist() for mask in masked] == [
        [[True] * 3] * 2,
        [[True, True], [False, False], [True, True]],
    ]
    small = units.shrink(model, iter(keep))
    left = [[[0, 2], [3, 5]], [6, 8], [[9, 10], [13, 14]], [15, 16]]
    assert [w.tolist() for w in small.get_weights()] == left
    assert small.name == model.name
    assert not small.compiled


def test_inputs_and_outputs_stay_in_their_structure():
    model = concatenating()
    small = units.shrink(model, some(model))
    assert small.name == model.name
    found = small({"images": np.ones((3, 6, 6, 2))})
    assert {name: y.shape for name, y in found.items()} == {"a": (3, 2), "b": (3, 1)}
    inputs = [keras.Input((4,)) for _ in range(2)]
    x = layers.Add()([layers.Dense(3)(x) for x in inputs])
    model = keras.Model((inputs[0], [inputs[1]]), {"only": layers.Dense(2)(x)})
    small = units.shrink(model, some(model))
    found = small((np.ones((3, 4)), [np.ones((3, 4))]))
    assert {name: y.shape for name, y in found.items()} == {"only": (3, 2)}


@pytest.mark.parametrize("make", NETWORKS)
def test_nothing_removed_is_the_same_network(make):
    model = in_double(make)
    small = units.shrink(model, [True] * len(channels.groups(model)))
    x = examples(model)
    assert np.array_equal(outputs(small, x, False), outputs(model, x, False))
    assert small.count_params() == model.count_params()


@pytest.fixture(scope="module", params=[attending, moving, shared])
def network(request):
    return in_double(request.param)


@settings(max_examples=8)
@given(data=st.data())
def test_whatever_is_kept(network, data):
    """Either the small network is the masked one, or nothing would be left of some axis."""
    groups = channels.groups(network)
    free = data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups)))
    keep = [bool(g.fixed) or kept for g, kept in zip(groups, free, strict=True)]
    stays = collections.Counter()
    for group, kept in zip(groups, keep, strict=True):
        stays.update({(id(m.variable), m.axis): kept for m in group.members})
    x = examples(network, 4)
    if 0 in stays.values():
        with pytest.raises(ValueError, match=r"keep: expected some of axis . of .*, found none"):
            units.shrink(network, keep)
    else:
        found = outputs(units.shrink(network, keep), x, False)
        with held_at_zero(network, units.unread(network, keep)):
            expected = outputs(network, x, False)
        assert np.max(np.abs(found - expected)) < 1e-13 * np.max(np.abs(expected))


def with_statistics(model, unread, x):
    """Give a model random scales, shifts and statistics, near those of what will be left of it.

    Fresh ones would prove nothing: in inference mode the outputs for two images may be equal.
    """
    generator = np.random.default_rng(3)
    norms = [la for la in model.layers if isinstance(la, layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(generator.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(generator.uniform(-0.5, 0.5, norm.beta.shape))
        norm.momentum = 0.0
    with held_at_zero(model, unread):
        model(x, training=True)
    for norm in norms:
        norm.moving_mean.assign_add(0.1 * generator.normal(size=norm.moving_mean.shape))
        factor = generator.uniform(0.5, 1.5, norm.moving_variance.shape)
        norm.moving_variance.assign(norm.moving_variance * factor)
        norm.momentum = 1.0


def mobile():
    size = {"input_shape": (32, 32, 3), "alpha": 0.35, "classes": 7}
    return keras.applications.MobileNetV2(weights=None, classifier_activation=None, **size)


def resnet50():
    options = {"classes": 7, "classifier_activation": None}
    return keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), **options)


@pytest.mark.parametrize("make", [mobile, resnet50])
def test_the_networks_of_keras(make):
    model = in_double(make, randomly=False)
    keep, x = some(model), examples(model, 12)
    unread = units.unread(model, keep)
    with_statistics(model, unread, x)
    small = units.shrink(model, keep)
    assert small.count_params() < 0.5 * model.count_params()
    assert {la.name for la in small.layers} == {la.name for la in model.layers}
    assert_alike(model, small, unread, x)


def test_one_group_costs_what_it_says():
    model = in_double(residual)
    groups = channels.groups(model)
    for i in (3, 5, len(groups) - 11):
        small = units.shrink(model, [j != i for j in range(len(groups))])
        assert model.count_params() - small.count_params() == groups[i].parameters
        lost = channels.count_multiply_adds(model) - channels.count_multiply_adds(small)
        assert lost == groups[i].multiply_adds


@pytest.mark.parametrize("make", [lenet5, dense_300_100])
def test_what_is_recognised_is_the_same_but_for_ties(make):
    """In float32 sums are rounded in another order, and only two equal outputs may change places.

    An error of 1e-5 of the spread is far above rounding, and far below what a dropped unit makes.
    """
    model = make()
    keep, x = some(model), examples(model, 500).astype("float32")
    small = units.shrink(model, keep)
    masks.apply(model, units.unread(model, keep))
    expected, found = model(x).numpy(), small(x).numpy()
    first, second = np.sort(expected, axis=1)[:, -1], np.sort(expected, axis=1)[:, -2]
    ties = first - second < 1e-5 * np.std(expected)
    assert np.mean(ties) < 0.01
    assert np.array_equal(expected.argmax(1)[~ties], found.argmax(1)[~ties])


def test_names_types_and_masks(tmp_path):
    model = lenet5()
    model.get_layer("hidden_1").kernel.constraint = keras.constraints.MaxNorm(9.0)
    chosen = masks.top_k([np.abs(k) for k in kernels(model)], 0.5)
    masks.apply(model, chosen)
    keep = some(model)
    small = units.shrink(model, keep)
    assert type(small) is keras.Sequential
    assert small.name == model.name
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    first, other = (x.inputs[0]._keras_history.operation for x in (model, small))
    assert first.name == other.name
    assert not any(isinstance(k.constraint, masks.Mask) for k in kernels(small))
    assert kernels(small)[2].constraint.max_value == 9.0
    for kernel, left, mask in zip(kernels(model), kernels(small), chosen, strict=True):
        kept = remaining(model, keep, kernel, mask.numpy())
        assert np.array_equal(left.numpy() != 0, kept)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(3, 28, 28, 1)).astype("float32")
    assert np.array_equal(again(x), small(x))
    small.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    small.fit(x, np.arange(3), verbose=0)


def remaining(model, keep, variable, values):
    """Return what is left of values of the shape of a variable."""
    gone = collections.defaultdict(set)
    for group, kept in zip(channels.groups(model), keep, strict=True):
        for member in group.members:
            if not kept and member.variable is variable:
                gone[member.axis].update(member.indices)
    for axis, indices in gone.items():
        values = np.delete(values, sorted(indices), axis)
    return values


def test_names_of_models_in_the_model():
    """Layers keep their names; of two with one name the second gets a number."""
    small = units.shrink(model := shared(), some(model))
    assert type(small) is type(model)
    assert [x.name for x in small.inputs] == ["same"]
    names = [layer.name for layer in small.layers if layer.name.startswith(("same", "other"))]
    assert sorted(names) == ["other", "other_1", "same", "same_1", "same_2", "same_3", "same_4"]
    assert [layer.name for layer in small.layers].count("twice") == 1


@pytest.mark.parametrize("alike", [False, True])
def test_operations_keep_their_names_too(alike):
    """Of two with one name, as models made in two sessions have them, the second gets another."""
    x = inputs = keras.Input((4,))
    for number in range(2):
        inner = keras.Input((4,))
        y = keras.ops.tanh(layers.Dense(4, name=f"dense_{number}")(inner))
        y._keras_history.operation.name = "one" if alike else f"one_{number}"
        x = keras.Model(inner, y)(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    small = units.shrink(model, [True] * len(channels.groups(model)))
    names = [operation.name for operation in small.operations if "one" in operation.name]
    assert names == (["one", "one_1"] if alike else ["one_0", "one_1"])
    np.testing.assert_allclose(small(np.ones((1, 4))), model(np.ones((1, 4))), rtol=1e-6)


def test_a_reshape_loses_channels_though_as_many_are_left_as_there_are_places():
    inputs = keras.Input((7,))
    x = keras.ops.reshape(layers.Dense(12)(inputs), (-1, 3, 4))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Conv1D(5, 1)(x))))
    groups = channels.groups(model)
    first = next(i for i, group in enumerate(groups) if not group.fixed)
    keep = [i != first for i in range(len(groups))]
    small = units.shrink(model, keep)
    masks.apply(model, units.unread(model, keep))
    x = np.random.default_rng(0).normal(size=(4, 7)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_head_of_attention_is_removed():
    model = in_double(attending)
    groups, (mha,) = (
        channels.groups(model),
        [la for la in model.layers if type(la) is layers.MultiHeadAttention],
    )
    queries = mha.query_dense.kernel
    keep = [not any(m.variable is queries and m.axis == 1 for m in g.members) for g in groups]
    keep[keep.index(False)] = True
    assert keep.count(False) == 2
    small = units.shrink(model, keep)
    left = small.get_layer(mha.name)
    assert (left.num_heads, left.key_dim, left.value_dim) == (1, mha.key_dim, mha.value_dim)
    assert_alike(model, small, units.unread(model, keep), examples(model))


@pytest.mark.parametrize("options", [{}, {"output_shape": (4,)}], ids=["as wide", "narrower"])
def test_attention_gives_fewer_channels_than_it_looks_for(options):
    """The channels that it looks for are those of the input, which stay."""

    def one_layer():
        inputs = keras.Input((5, 6))
        x = layers.MultiHeadAttention(2, 3, **options)(inputs, inputs)
        return keras.Model(inputs, layers.Dense(2)(x))

    model = in_double(one_layer)
    written = model.layers[1].output_dense.kernel
    keep = [
        not any(m.variable is written and m.axis == 2 for m in g.members)
        for g in channels.groups(model)
    ]
    keep[keep.index(False)] = True
    small = units.shrink(model, keep)
    assert small.layers[1].output.shape[-1] == model.layers[1].output.shape[-1] - keep.count(False)
    assert_alike(model, small, units.unread(model, keep), examples(model))


class Own(layers.Layer):
    """A layer of one's own, which keeps a function and thus has no configuration."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


def with_lambda(link):
    """Return a network with something that is not understood between two layers that are."""
    x = inputs = keras.Input((3,))
    x = layers.Dense(4, name="free")(x)
    x = layers.Dense(5, activation=lambda z: keras.ops.flip(z, -1), name="before")(x)
    x = layers.Dense(4, "tanh", name="after")(link(x))
    return keras.Model(inputs, layers.Dense(2, name="output")(x))


def odd():
    shift = {"function": lambda x, by: keras.ops.roll(x, by, -1), "arguments": {"by": 2}}
    return layers.Lambda(**shift, name="odd")


def test_what_is_not_understood_stays_as_it_is():
    model = in_double(lambda: with_lambda(odd()))
    keep = some(model)
    assert keep.count(False) > 2
    small = units.shrink(model, keep)
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert_alike(model, small, units.unread(model, keep), examples(model))


# Training goes on ---------------------------------------------------------------------------


@pytest.fixture
def double():
    """Let Keras compute losses in float64 too."""
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def in_training(optimizer, **options):
    """Return a compiled network in float64, trained for three steps, and two batches more."""

    def make():
        x = inputs = keras.Input((6, 6, 2))
        bound, l2 = keras.constraints.MaxNorm(2.0, (0, 1, 2)), keras.regularizers.L2(0.1)
        x = layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer=l2)(x)
        x = y = layers.Activation("tanh")(layers.BatchNormalization()(x))
        inner = [keras.Input(x.shape[1:]), layers.Conv2D(4, 1, kernel_constraint=bound)]
        x = layers.Maximum()([layers.Add()([x, keras.Sequential(inner)(x)]), y])
        x = layers.Dense(8, "elu")(layers.Flatten()(x))
        return keras.Model(inputs, layers.Dense(3)(x))

    model = in_double(make)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"run_eagerly": True} | options)
    batches = [(examples(model, 8, seed), np.arange(8) % 3) for seed in range(5)]
    for batch in batches[:3]:
        model.train_on_batch(*batch)
    return model, batches[3:]


def assert_same_state(model, small, keep, bound=0.0):
    """Assert that weights and what is remembered of them are the same, where they are kept."""
    count = 0
    for layer in small.layers:
        (old,) = (la for la in model._flatten_layers() if la.name == layer.name)
        for variable, left in zip(old.variables, layer.variables, strict=True):
            pairs = {"weight": (variable, left)}
            if left.trainable:
                ours = optimizers.slots(small.optimizer, left)
                theirs = optimizers.slots(model.optimizer, variable)
                assert ours.keys() == theirs.keys()
                pairs |= {name: (theirs[name], ours[name]) for name in ours}
            for a, b in pairs.values():
                a = remaining(model, keep, variable, a.numpy())
                assert np.max(np.abs(a - b.numpy())) <= bound * max(1, np.max(np.abs(a)))
            count += len(pairs)
    assert count >= len(small.variables)
    numbers = [[v.numpy() for v in m.optimizer.variables if v.shape == ()] for m in (model, small)]
    assert numbers[0] == numbers[1]


DECAY = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
AVERAGED = {"use_ema": True, "ema_momentum": 0.8}
RULES = {name: lambda name=name: EVERY[name](0.02) for name in EVERY if name != "Adafactor"} | {
    "momentum": lambda: keras.optimizers.SGD(DECAY, momentum=0.9, nesterov=True),
    "amsgrad": lambda: keras.optimizers.Adam(0.02, amsgrad=True, clipvalue=0.1),
    "averaged": lambda: keras.optimizers.AdamW(0.02, **AVERAGED, ema_overwrite_frequency=5),
    "accumulated": lambda: keras.optimizers.Adam(0.02, gradient_accumulation_steps=2, **AVERAGED),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.02, **AVERAGED), initial_scale=64.0, dynamic_growth_steps=2
    ),
    "multi": lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(0.02), {".*kernel": keras.optimizers.SGD(0.1, momentum=0.9)}
        )
    ),
}
TOGETHER = {"Lamb", "Muon"}  # they treat all entries of a weight together


@pytest.mark.parametrize("rule", RULES)
def test_training_goes_on_as_under_masks(rule, double):
    """The small network's next steps are those of the large one whose readers are masked."""
    model, batches = in_training(RULES[rule]())
    keep = some(model)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    small = units.shrink(model, keep, compiled=True)
    for value, now in zip(before, [*model.variables, *model.optimizer.variables], strict=True):
        assert np.array_equal(value, now)
    assert type(small.optimizer) is type(model.optimizer)
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert_same_state(model, small, keep)
    masks.apply(model, units.unread(model, keep))
    for batch in batches if rule not in TOGETHER else ():
        for each in (model, small):
            each.train_on_batch(*batch)
        assert_same_state(model, small, keep, 1e-12)


def test_a_rate_that_was_changed_and_metrics(double):
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    rule = keras.optimizers.SGD(0.5, momentum=0.9)
    options = {"metrics": [accuracy, "sparse_categorical_crossentropy"], "run_eagerly": False}
    model, batches = in_training(rule, jit_compile=False, steps_per_execution=3, **options)
    rule.learning_rate = 0.125
    small = units.shrink(model, some(model), compiled=True)
    assert float(small.optimizer.learning_rate) == 0.125
    assert int(small.optimizer.iterations) == 3
    assert (small.steps_per_execution, small.jit_compile, small.run_eagerly) == (3, False, False)
    assert small.loss is model.loss
    before = float(accuracy.total)
    small.reset_metrics()
    results = small.evaluate(*batches[0], verbose=0, return_dict=True)
    assert results.keys() == model.get_metrics_result().keys()
    assert float(accuracy.total) == before > 0  # each model counts for itself


def test_a_compiled_one_is_saved_with_what_it_remembers(tmp_path, double):
    model, batches = in_training("adam", run_eagerly=False, jit_compile=False)
    small = units.shrink(model, some(model), compiled=True)
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    for each in (small, loaded):
        each.fit(*batches[0], shuffle=False, verbose=0)
    for a, b in zip(small.optimizer.variables, loaded.optimizer.variables, strict=True):
        assert np.array_equal(a, b)


def test_one_that_is_compiled_and_has_not_been_trained():
    model = dense_300_100(units=(6, 5))
    model.compile("adam", "mse")
    small = units.shrink(model, some(model), compiled=True)
    assert type(small.optimizer) is keras.optimizers.Adam
    assert not small.optimizer.built
    assert not units.shrink(model, some(model)).compiled


class Seen(keras.Metric):
    """A metric that is no mean: how many labels it has seen."""

    def __init__(self, name="seen", **options):
        super().__init__(name=name, **options)
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y, outputs, sample_weight=None):
        self.count.assign_add(keras.ops.size(y))

    def result(self):
        return self.count


@pytest.mark.parametrize("kind", [keras.metrics.SparseCategoricalAccuracy, Seen])
def test_metrics_of_either_kind_count_for_each_model_alone(double, kind):
    options = {"metrics": [kind(name="plain")], "weighted_metrics": [kind(name="weighted")]}
    model, batches = in_training("sgd", **options)
    small = units.shrink(model, some(model), compiled=True)
    for (metric,) in options.values():
        metric.count.assign(777.0)
    small.evaluate(*batches[0], verbose=0)
    assert [float(metric.count) for (metric,) in options.values()] == [777, 777]


def test_a_loss_that_was_not_scaled_is_not_scaled_now():
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = dense_300_100(units=(6, 5))
        for scaled in (False, True):
            model.compile("adam", "mse", auto_scale_loss=scaled)
            small = units.shrink(model, some(model), compiled=True)
            assert type(small.optimizer) is type(model.optimizer)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "name", ["compile", "train_step", "test_step", "compute_loss", "compute_metrics"]
)
def test_a_model_with_a_method_of_its_own_is_not_compiled_without_it(name):
    own = type("OwnMethod", (keras.Model,), {name: getattr(keras.Model, name)})
    inputs = keras.Input((3,))
    model = own(inputs, layers.Dense(2)(layers.Dense(4)(inputs)), name="own")
    model.compile("sgd", "mse")
    units.shrink(model, some(model), compiled=True)
    setattr(own, name, lambda self, *args, **kwargs: getattr(keras.Model, name)(self, *args))
    with pytest.raises(ValueError, match=f"'own': expected .* found a method {name} of its own"):
        units.shrink(model, some(model), compiled=True)


def test_a_fresh_metric_has_the_options_of_the_old_one():
    top = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top")
    top.update_state([0], np.ones((1, 3), "float32"))
    found = units._fresh(top)
    assert found is not top
    assert found.get_config() == top.get_config()
    assert [float(metric.count) for metric in (found, top)] == [0, 1]
    assert units._fresh("mae") == "mae"


class OwnStep(keras.Model):
    def train_step(self, data):
        return {}


def test_training_that_cannot_go_on_is_refused(double):
    model = dense_300_100(units=(6, 5))
    with pytest.raises(ValueError, match="'lenet_300_100': expected a compiled model, found one"):
        units.shrink(model, some(model), compiled=True)
    model, _ = in_training(keras.optimizers.Adafactor(0.1))
    with pytest.raises(ValueError, match=r"'adafactor.*': expected slots of the shape .* found _r"):
        units.shrink(model, some(model), compiled=True)
    inputs = keras.Input((3,))
    model = OwnStep(inputs, layers.Dense(2)(layers.Dense(4)(inputs)), name="own")
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match=r"'own': expected .* found a method train_step of its own"
    ):
        units.shrink(model, some(model), compiled=True)


def test_losses_by_names_that_are_dissolved_are_refused():
    inputs = keras.Input((4,))
    inner = [keras.Input((4,)), layers.Dense(5), layers.Dense(2, name="leaf")]
    y = keras.Sequential(inner, name="nest")(inputs)
    model = keras.Model(inputs, [y, layers.Dense(3, name="b")(inputs)])
    model.compile("sgd", {"nest": "mse", "b": "mse"})
    with pytest.raises(ValueError, match=r"named \['leaf', 'b'\].*for \['nest', 'b'\]"):
        units.shrink(model, some(model), compiled=True)
    model.compile("sgd", ["mse", "mse"], metrics={"nest": "mae"})
    with pytest.raises(ValueError, match=r"named \['leaf', 'b'\].*for \['nest', 'b'\]"):
        units.shrink(model, some(model), compiled=True)
    model.compile("sgd", ["mse", "mse"])
    small = units.shrink(model, some(model), compiled=True)
    small.fit(np.ones((4, 4)), [np.ones((4, 2)), np.ones((4, 3))], verbose=0)


def test_losses_by_names_that_stay_are_taken_over():
    """Those of layers that are no models, and keys of a dictionary of outputs."""
    inputs = keras.Input((4,))
    x = layers.Dense(6)(inputs)
    outputs = {name: layers.Dense(n, name=name)(x) for name, n in (("a", 2), ("b", 3))}
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(2, name="leaf")], name="nest")
    nested = keras.Model(inputs, {"a": inner(x), "b": outputs["b"]})
    for model in (keras.Model(inputs, list(outputs.values())), nested):
        losses = {"a": "mse", "b": "mae"}
        model.compile("sgd", losses, loss_weights={"a": 2.0, "b": 10.0}, run_eagerly=True)
        small = units.shrink(model, some(model), compiled=True)
        given = np.ones((4, 4)), {"a": np.ones((4, 2)), "b": np.ones((4, 3))}
        y = small(given[0])
        a, b = (y[0], y[1]) if isinstance(y, list) else (y["a"], y["b"])
        expected = 2 * np.mean((a - 1) ** 2) + 10 * np.mean(np.abs(b - 1))
        truth = given[1] if model is nested else list(given[1].values())
        found = small.evaluate(given[0], truth, verbose=0, return_dict=True)
        assert found["loss"] == pytest.approx(expected, rel=1e-5)


# Bad input ----------------------------------------------------------------------------------


@pytest.fixture
def untouched():
    """Return a function that keeps the weights of a model, to be compared at the end."""
    kept = []

    def keep(model):
        kept.append((model, model.get_weights(), model.to_json()))
        return model

    yield keep
    for model, weights, written in kept:
        assert all(map(np.array_equal, model.get_weights(), weights))
        assert model.to_json() == written


def test_what_cannot_be_removed_is_named(untouched):
    model = untouched(dense_300_100(units=(4, 3)))
    groups = channels.groups(model)
    for count in (0, 2, len(groups) + 1):
        said = f"one boolean per group, {len(groups)}, found {count}"
        with pytest.raises(ValueError, match=said):
            units.shrink(model, [True] * count)
    keep = [g.fixed != (channels.OUTPUT,) for g in groups]
    with pytest.raises(
        ValueError, match=r"axis 1 of .*output/kernel is not: output of the network"
    ):
        units.shrink(model, keep)
    with pytest.raises(ValueError, match=r"some of axis 1 of .*hidden_1/kernel, found none"):
        units.shrink(model, [bool(g.fixed) for g in groups])
    with pytest.raises(ValueError, match=r"keep: expected booleans, or groups, found 0\.3"):
        units.shrink(model, [0.3] * len(groups))
    with pytest.raises(ValueError, match="keep: expected booleans, or groups, found array"):
        units.shrink(model, [np.ones(3)] * len(groups))
    free, *_, last = (n for n, g in enumerate(groups) if not g.fixed or g is groups[-1])
    for refuse in (units.shrink, units.unread):
        with pytest.raises(ValueError, match=r"booleans, or groups, found 2"):
            refuse(model, [*[True] * (len(groups) - 1), 2])  # a single one, the last
        with pytest.raises(ValueError, match=r"output/kernel is not: output of the network"):
            refuse(model, [n not in (free, last) for n in range(len(groups))])


def test_groups_are_not_mixed_with_booleans_and_nothing_is_not_a_list_of_groups(untouched):
    model = untouched(dense_300_100(units=(4, 3)))
    groups = channels.groups(model)
    for refuse in (units.shrink, units.unread):
        for keep in ([groups[0], *[True] * (len(groups) - 1)], [*groups[:-1], True]):
            with pytest.raises(ValueError, match="keep: expected booleans, or groups, found Group"):
                refuse(model, keep)
        with pytest.raises(ValueError, match=f"one boolean per group, {len(groups)}, found 0"):
            refuse(model, [])


def test_a_fixed_group_is_named_with_all_that_fixes_it(untouched):
    x = inputs = keras.Input((3,))
    y = layers.Dense(4, name="free")(x)
    z = layers.Dense(4, name="before")(y)
    ends = [layers.Softmax(name=name)(z) for name in ("p", "q")]
    model = untouched(keras.Model(inputs, layers.Add()(ends)))
    groups = channels.groups(model)
    bad = next(n for n, g in enumerate(groups) if len(g.fixed) == 2)
    why = "'p' normalises over .* for all others; Softmax 'q' normalises over .* for all others$"
    for refuse in (units.shrink, units.unread):
        with pytest.raises(ValueError, match=f"one of axis 1 of before/kernel is not: .*{why}"):
            refuse(model, [n != bad for n in range(len(groups))])


@pytest.mark.parametrize("width", [2, 4])
def test_a_layer_that_is_not_made_as_small_as_its_weights_are_is_named(
    monkeypatch, untouched, width
):
    model = untouched(build((3,), layers.Dense(4, name="cut"), layers.Dense(2)))
    monkeypatch.setitem(units.SIZES, layers.Dense, lambda *given: {"units": width})
    keep = [n != 3 for n in range(9)]
    said = f"shrink: expected cut/kernel of shape (3, 3), found (3, {width})"
    with pytest.raises(ValueError, match=re.escape(said)):
        units.shrink(model, keep)


def test_groups_say_whose_they_are(untouched):
    """Booleans fit any network with as many groups; the groups themselves fit their own only."""
    model, other = (untouched(dense_300_100(units=(4, 3), seed=i)) for i in (0, 1))
    keep = some(model)
    kept = [g for g, stays in zip(channels.groups(model), keep, strict=True) if stays]
    small, same = units.shrink(model, kept[::-1]), units.shrink(model, np.array(keep))
    assert small.count_params() < model.count_params()
    assert all(map(np.array_equal, small.get_weights(), same.get_weights()))
    assert all(map(np.array_equal, units.unread(model, kept), units.unread(model, keep)))
    with pytest.raises(ValueError, match=r"groups of this model, .*hidden_1/kernel, which belongs"):
        units.shrink(other, kept)
    with pytest.raises(ValueError, match=r"groups of this model, .*/kernel, which belongs"):
        units.shrink(model, [*kept, channels.groups(other)[-1]])


def test_groups_are_told_apart_by_what_writes_them():
    """Two layers of equal shape that one layer reads: axes and indices are the same."""
    inputs = keras.Input((4,))
    heads = layers.Concatenate()([layers.Dense(3, name=name)(inputs) for name in "ab"])
    model = keras.Model(inputs, layers.Dense(2)(heads))
    groups = channels.groups(model)
    gone = next(g for g in groups if g.members[0].variable.path == "a/kernel" and not g.fixed)
    small = units.shrink(model, [g for g in groups if g is not gone])
    assert [small.get_layer(name).units for name in "ab"] == [2, 3]


def test_two_filters_with_a_channel_each_are_as_many_as_are_left():
    inputs = keras.Input((5, 5, 3))
    x = layers.Conv2D(4, 3, groups=2, name="two")(layers.Conv2D(2, 1)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    gone = next(i for i, group in enumerate(channels.groups(model)) if not group.fixed)
    keep = [i != gone for i in range(len(channels.groups(model)))]
    small, x = units.shrink(model, keep), examples(model)
    assert (small.get_layer("two").groups, small.get_layer("two").filters) == (1, 2)
    masks.apply(model, units.unread(model, keep))
    np.testing.assert_allclose(outputs(small, x, False), outputs(model, x, False), atol=1e-6)


def test_networks_that_cannot_be_walked_are_refused(untouched):
    subclassed = Subclassed()
    subclassed(np.zeros((1, 28, 28, 1)))
    for refuse in (units.shrink, units.unread):
        with pytest.raises(ValueError, match=r"expected a functional or Sequential.*Subclassed"):
            refuse(subclassed, [])
        with pytest.raises(ValueError, match="found a Sequential without an Input"):
            refuse(keras.Sequential([layers.Dense(3)]), [])


def channels_first():
    x = inputs = keras.Input((3, 6, 6))
    x = layers.Conv2D(4, 1, data_format="channels_first", name="before")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (channels_first, "Conv2D 'before' has its channels first"),
        (lambda: with_lambda(odd()), "Lambda 'odd' is not understood"),
        (lambda: with_lambda(Own(abs, name="own")), "Own 'own' is not understood"),
        (lambda: with_lambda(layers.Softmax(name="odd")), "Softmax 'odd' normalises over all"),
    ],
)
def test_a_layer_that_cannot_be_cut_is_named(make, why):
    model = make()
    before = model.get_weights()
    keep = [not any(why in reason for reason in g.fixed) for g in channels.groups(model)]
    assert False in keep
    for refuse in (units.shrink, units.unread):
        with pytest.raises(ValueError, match=f"expected the fixed groups to be kept.*{why}"):
            refuse(model, keep)
    assert all(map(np.array_equal, model.get_weights(), before))


def test_channels_first_stay_as_they_are():
    model = channels_first()
    small = units.shrink(model, [True] * len(channels.groups(model)))
    assert [w.shape for w in small.weights] == [w.shape for w in model.weights]


@pytest.mark.parametrize("error", [TypeError, ValueError, NotImplementedError])
def test_however_a_layer_says_that_it_cannot_be_made_again(error):
    class Refuses(layers.Layer):
        def call(self, x):
            return x

        def get_config(self):
            raise error("no configuration")

    model = with_lambda(Refuses(name="own"))
    with pytest.raises(ValueError, match="found Refuses 'own', which cannot") as raised:
        units.shrink(model, some(model))
    assert isinstance(raised.value.__cause__, error)


def test_what_is_not_understood_keeps_all_its_options():
    options = {"arguments": {"by": 2}, "mask": lambda x, mask: None, "trainable": False}
    options |= {"output_shape": lambda shape: shape, "dtype": "float64"}
    link = layers.Lambda(lambda x, by: keras.ops.roll(x, by, -1), name="odd", **options)
    model = with_lambda(link)
    found = units.shrink(model, some(model)).get_layer("odd")
    assert found is not link
    assert found.dtype_policy.name == "float64"
    for name in ("function", "mask", "arguments", "trainable", "_output_shape"):
        assert getattr(found, name) == getattr(link, name)


def test_what_is_not_understood_may_have_an_activation_that_is_no_option():
    class Bent(layers.Layer):
        activation = staticmethod(keras.ops.tanh)

        def call(self, x):
            return self.activation(x)

    model = in_double(lambda: with_lambda(Bent(name="own")))
    keep = some(model)
    small = units.shrink(model, keep)
    assert_alike(model, small, units.unread(model, keep), examples(model))


def test_two_lambdas_of_one_name_get_two():
    x = inputs = keras.Input((4,))
    for _ in range(2):
        inner = keras.Input((4,))
        x = keras.Model(inner, layers.Lambda(abs, name="same")(inner))(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    small = units.shrink(model, [True] * len(channels.groups(model)))
    names = [la.name for la in small.layers if isinstance(la, layers.Lambda)]
    assert names == ["same", "same_1"]


@pytest.mark.parametrize("groups", [-1, 3])
def test_a_normalisation_in_groups_keeps_their_size(groups):
    def make():
        x = inputs = keras.Input((4, 5))
        x = layers.GroupNormalization(groups, name="norm")(layers.Dense(6, "tanh")(x))
        return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))

    model = in_double(make)
    free = [n for n, g in enumerate(channels.groups(model)) if not g.fixed]
    assert len(free) == {-1: 6, 3: 3}[groups]
    keep = [n != free[1] for n in range(len(channels.groups(model)))]
    small = units.shrink(model, keep)
    assert small.get_layer("norm").groups == {-1: 5, 3: 2}[groups]
    assert_alike(model, small, units.unread(model, keep), examples(model))


def test_a_sequential_of_models_is_shrunk_and_a_fixed_batch_stays():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu"), layers.Dense(4)])
    model = keras.Sequential([keras.Input(batch_shape=(3, 6)), inner, layers.Dense(2)])
    keep = some(model)
    small = units.shrink(model, keep)
    assert small.input_shape == model.input_shape == (3, 6)
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    with held_at_zero(model, units.unread(model, keep)):
        np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-6)


def test_a_layer_that_cannot_be_made_again_is_named():
    model = with_lambda(Own(abs, name="own"))
    with pytest.raises(ValueError, match="from their configuration, found Own 'own', which cannot"):
        units.shrink(model, some(model))


def test_a_reader_without_a_mask_is_named():
    """A frozen kernel cannot have a mask, but it can be cut."""
    model = in_double(lambda: with_lambda(layers.ReLU()))
    keep, x = some(model), examples(model)
    expected = outputs(units.shrink(model, keep), x, False)
    model.get_layer("before").trainable = False
    with pytest.raises(ValueError, match="before/kernel: expected a trainable kernel"):
        units.unread(model, keep)
    small = units.shrink(model, keep)
    assert not small.get_layer("before").trainable
    assert np.array_equal(outputs(small, x, False), expected)


def test_groups_of_another_model_are_named_by_their_first_axis():
    model, other = (dense_300_100(units=(6, 5), seed=seed) for seed in range(2))
    group = next(group for group in channels.groups(other) if not group.fixed)
    first = group.members[0]
    assert first.axis != group.members[-1].axis
    said = f"found one of axis {first.axis} of {first.variable.path}, which belongs to another"
    with pytest.raises(ValueError, match=re.escape(said)):
        units.shrink(model, [group])


def test_what_draws_random_numbers_goes_on_where_it_is():
    links = layers.Dense(8, "tanh"), layers.Dropout(0.5, seed=3), layers.Dense(3)
    model = build((6,), *links)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    model(x, training=True)
    small = units.shrink(model, [True] * len(channels.groups(model)))
    for _ in range(2):
        np.testing.assert_array_equal(small(x, training=True), model(x, training=True))


def test_options_of_a_call_are_handed_on():
    def make():
        x = inputs = keras.Input((5, 3))
        x = layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
        return keras.Model(inputs, layers.Dense(2)(x))

    model = in_double(make)
    small = units.shrink(model, [True] * len(channels.groups(model)))
    x = examples(model)
    assert np.array_equal(outputs(small, x, False), outputs(model, x, False))


def test_layers_of_several_kernels_lose_all_their_masks():
    limit = keras.constraints.MaxNorm(9.0)
    chain = [layers.SeparableConv2D(6, 3, pointwise_constraint=limit), layers.DepthwiseConv2D(2)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *chain, layers.Flatten(), layers.Dense(2)])
    masks.apply(model, [np.indices(k.shape).sum(0) % 2 == 0 for k in kernels(model)])
    small = units.shrink(model, some(model))
    bounds = [getattr(k.constraint, "max_value", k.constraint) for k in kernels(small)]
    assert bounds == [None, 9.0, None, None]


@pytest.mark.parametrize("first", [4, 1])
def test_masks_are_refused_where_nothing_would_be_left_of_a_layer(first):
    model = dense_300_100(units=(first, 3))
    keep = [bool(g.fixed) for g in channels.groups(model)]
    for cut in (units.unread, units.shrink):
        with pytest.raises(ValueError, match=r"some of axis 1 of .*hidden_1/kernel, found none"):
            cut(model, keep)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.LSTM(3),
        lambda: keras.layers.RNN(keras.layers.GRUCell(3)),
        lambda: keras.layers.Bidirectional(keras.layers.GRU(3)),
        lambda: keras.layers.TimeDistributed(keras.layers.Dense(3)),
    ],
    ids=["LSTM", "RNN", "Bidirectional", "TimeDistributed"],
)
def test_cells_and_wrapped_layers_lose_their_masks_and_keep_their_zeros(layer):
    links = layer(), keras.layers.Flatten(), keras.layers.Dense(4), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((5, 4)), *links])
    masks.apply(model, [np.indices(k.shape).sum(0) % 2 == 0 for k in kernels(model)])
    small = units.shrink(model, [True] * len(channels.groups(model)))
    for old, new in zip(kernels(model), kernels(small), strict=True):
        np.testing.assert_array_equal(old, new)
        assert isinstance(old.constraint, masks.Mask)
        assert not isinstance(new.constraint, masks.Mask)
