"""Training: a network and its state in memory, data, epochs, checkpoints, and the curve of the loss.

trainer.py     steps over parameters and optimiser state in buffers that stay where they are
data.py        samples, and what opens them: folders of images, .npz files, scanned digits
loop.py        epochs, evaluation, checkpoints
checkpoint.py  all that a training needs to go on to the same bits, as one file
curve.py       the losses as a picture
"""

from graphc.learning.trainer import StepMemory, Trainer

__all__ = ["StepMemory", "Trainer"]
