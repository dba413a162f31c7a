"""Checks of a model that engines are to serve, before any starts."""

from transformers import PreTrainedConfig

from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.foreign import reading
from openrs_ray.config.placement import Slots
from openrs_ray.config.rollout import Engine
from openrs_ray.config.schema import Model
from openrs_ray.errors import UserError
from openrs_ray.models.engine_limits import check_engine
from openrs_ray.models.pretrained import read_config
from openrs_ray.models.weight_files import check_weights


def check_served(
    model: Model,
    model_path: str,
    engine: Engine,
    place: Slots,
    tokens: int,
    fields: str,
    given_as: str = "model.path",
) -> tuple[PreTrainedConfig, ModelShape]:
    """The model's configuration and shape. UserError where it is not whole, or unfit for engines and `tokens` set by `fields`.

    `given_as`: field with the model's name.
    """
    with reading(f"the configuration of {given_as} {model.path!r} cannot be used"):
        config = read_config(model_path)
        with reading(f"cannot read the configuration of {model_path}"):
            shape = ModelShape.of(config)
        check_engine(model, place, model_path, config)
        limit = getattr(config, "max_position_embeddings", None)
        if limit is not None and tokens > limit:
            raise UserError(f"{fields} is {tokens} but {model.path} takes at most {limit} tokens")
        if rule := shape.broken_split(engine.tensor_parallel):
            raise UserError(f"engine.tensor_parallel ({engine.tensor_parallel}) must {rule} of {model.path}")
        check_weights(model_path, config)
        return config, shape
