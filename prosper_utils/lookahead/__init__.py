r"""Part I, looking ahead: carry a gradient back along a short trajectory, one step at a time.

With :math:`J_m` the Jacobian of step m of a trajectory, what the end says of the beginning is

.. math:: \frac{\partial L_M}{\partial s_0} &= J_0^\top J_1^\top \cdots J_{M-1}^\top \,
          \nabla L_M(s_M), \\
          J_m &= I - \alpha H_m \text{ for gradient descent} .

Its modules, in the order in which to read them:

* `trajectory`: roll a step forward, pull a cotangent back, push a tangent forward.
* `loops`: compiled loops, kept from a rewrite of TensorFlow's that breaks them.
* `descent`: gradient descent as such a step.
* `chunks`: batches stacked, so that a chunk of steps is one such loop.
* `second_derivatives`: are the Hessians those of the loss?
* `meta_gradient`: the gradient of the loss after M steps with respect to a mask.
* `conditioning`: how large that gradient is, and whether its float type can hold it.
* `streaming`: one factor per weight and step in place of each Jacobian, and what it costs.
"""
