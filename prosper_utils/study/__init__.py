r"""What the chapters need to measure and to show: data, training, intervals, results, figures.

A difference between two arms is taken within each seed and stated with its interval,

.. math:: \bar d \pm t_{(1 + \text{level})/2,\; S - 1} \, \frac{\sigma}{\sqrt S} .

No other wing needs this one.  Its modules, in the order in which to read them:

* `datasets`: MNIST, or scikit-learn's digits where it is not available, and batches of them.
* `training`: one protocol of training, and the error after it.
* `controls`: what else could explain that a smaller network trains well.
* `comparison`: intervals over seeds, paired differences, and a correction for many claims.
* `verdicts`: what follows for a claim, in one of five words.
* `results`: stored results, and where they come from.
* `arms`: what one arm of a stored sweep does better than another.
* `findings`: which comparisons carry over from one data set to the others.
* `attempt`, `journal`, `hopes`: every statement of our sources, and of ours, with its verdict.
* `plots`: one style for all figures.
* `checks`: how a chapter states a claim, or stops.
"""
