"""What deep Taylor decomposition really does (Sixt and Landgraf 2022, arXiv 2211.08425), on its test bed and on a network.

    python -m mixaug_jax.main --config=configs/taylor_study.py
    python -m mixaug_jax.main --config=configs/taylor_study.py:folder --config.weights=WEIGHTS --config.data.dir=PHOTOS
    python -m mixaug_jax.main --config=configs/taylor_study.py --stage=taylor --config.taylor.parts=testbed

The first command studies the published test bed and the network of runs/baseline-scenes (--config.taylor.run names another
run; --config=baseline makes this one). The second takes any network whose backward rules can be replaced, on the validation
images of a folder; the third needs no network. Claims (a) to (g) of the paper, each with whether it holds here, go to the
console, to taylor/claims.csv and to the page; all numbers to taylor/taylor.csv. A run that was stopped goes on with the same
command.

Expect: on the test bed, z+ roots for a neuron's own activation lie in the linear region of the input for 18 %, 23 % and 100 %
of the active neurons of its three layers; maps of its two outputs have the median cosine .977 by z+ and .26 by the gradient.
"""

from mixaug_jax import config
from mixaug_jax.config import keys
from mixaug_jax.papers import deep_taylor


def get_config(data="scenes"):
    settings = config.get_config("baseline", data)
    settings.stages = ("taylor", "report")
    with settings.unlocked():
        settings.taylor = keys.defaults("taylor", deep_taylor.KEYS)
    settings.taylor.units = 25  # an eighth, so that compiling takes longer than measuring
    return settings
