"""What a method says about itself beyond its signature."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """A method of attribution, which is called like its function.

    Attributes:
      f: f(net, image [h,w,C], label, *, options) -> [h,w,C] or [h,w,1].
      signed: whether values are contributions, whose sum over channels means something. Where it is False they tell how
        sensitive the output is to a pixel, with a sign that depends on the pixel's color, and magnitudes are summed.
      title: in words; "" is the name.
      control: whether it knows nothing of the network: every method has to beat these.
      cam: whether its maps are a layer's, enlarged, in which many values are equal.
      complete: whether a map sums to the change of the option `output` (without one: of the logit) from the option `baseline`
        to the image, so that a run says how much of it is missing.
      attention: whether it looks at a vision transformer's attention, and refuses other networks.
    """

    f: Callable
    signed: bool = True
    title: str = ""
    control: bool = False
    cam: bool = False
    complete: bool = False
    attention: bool = False

    def __call__(self, net: Any, image: Any, label: Any, **options: Any) -> Any:
        return self.f(net, image, label, **options)

    @property
    def __name__(self) -> str:
        return self.f.__name__

    @property
    def __wrapped__(self) -> Callable:
        return self.f
