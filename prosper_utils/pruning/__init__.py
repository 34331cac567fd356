r"""Part II, pruning networks: score a Keras model's connections, keep the best, train them.

Every score reads off what a mask :math:`c` on the weights would do,

.. math:: w_0 &= c \odot w, \\
          \text{score} &= |\partial L_M(w_M) / \partial c| \; \text{ at } c = 1,

and of n connections the best :math:`k = \lceil n (1 - \text{sparsity}) \rceil` are kept.

Its modules, in the order in which to read them:

* `networks`: the two networks of the book, and a Keras model as a function of its weights.
* `losses`: the loss that a model was compiled with, as a pure function.
* `mode`: how a model is run: statistics, random numbers, float type.
* `normalisation`: moments whose second derivative is right, too.
* `replacement`: how both reach into Keras, in one thread, for a while.
* `scores`: one number per connection: random, magnitude, SNIP, GraSP, SynFlow, ProsPr.
* `masks`: keep the best k and hold the rest at zero.
* `channels`: one walk over the graph of a Keras model, and the groups of channels that live and
  die together.
* `units`: a smaller network without whole groups of channels.
* `gates`: one score for each group, read off a gate that its members share.
* `budgets`: which groups to remove, so that a network costs as little as asked.
* `deploy`: the files that a pruned network is shipped as, how large they are, how fast they run.
* `paths`: what can flow from the inputs of a network to its outputs.
* `callbacks`: how schedules and regrowth learn of the steps that Keras makes.
* `schedules`: prune by magnitude while a network trains, all at once or little by little.
* `optimizers`: what a Keras optimizer remembers of a weight, which masks and regrowth must hold.
* `regrowth`: the loop of `prosper_utils.blending` on a network, whose zero weights earn weight
  while it trains.
"""
