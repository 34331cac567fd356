r"""Part II, pruning networks: score a Keras model's connections, keep the best, train them.

Every score reads off what a mask :math:`c` on the weights would do,

.. math:: w_0 = c \odot w, \qquad \text{score} = |\partial L_M(w_M) / \partial c| \;
          \text{ at } c = 1, \qquad k = \lceil n (1 - \text{sparsity}) \rceil \text{ are kept} .

Its modules, in the order in which to read them:

* `networks`: the two networks of the book, and any Keras model as a function of its weights.
* `scores`: one number per connection: random, magnitude, SNIP, GraSP, SynFlow, ProsPr.
* `masks`: keep the best k and hold the rest at zero, on any Keras 3 model.
* `channels`: one walk over the graph of a Keras model, and the groups of channels that live and
  die together.
* `paths`: what can flow from the inputs of a network to its outputs.
* `units`: a smaller network from which whole groups of channels are gone.
* `regrowth`: the loop of `prosper_utils.blending` on a network, whose zero weights earn weight
  while it trains.
"""
