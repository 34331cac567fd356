r"""Part III, blending: a finite distribution evolves, and terms of weight zero earn weight.

One step keeps a share a of the distribution and combines all pairs of its objects,

.. math:: F(p) &= a \, p + (1 - a) \, \frac{\text{comb}(p)}{\|\text{comb}(p)\|_1}, \\
          \text{comb}(p)(z) &= \sum_{x \circ y = z} p(x) \, p(y) ,

where the sum reaches beyond the support of p: its value is the same, its gradient is not.

Its modules, in the order in which to read them:

* `distributions`: weights on finitely many objects, and sums that reach beyond their support.
* `detachment`: formulas, unification, and proofs as strings.
* `kernel`: the same for many pairs at once, compiled where Numba is installed.
* `evolution`: the loop in which terms of weight zero earn weight.
* `worth`: whether credit tells what an object without weight is worth.
* `search`: plain search and a genetic algorithm, to compare the evolution with.
* `circuits`: a second domain for the same loop, Boolean functions made of gates.
* `metamath`: proofs in a form that a program of others checks.
"""
