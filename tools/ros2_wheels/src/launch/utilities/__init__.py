"""Functions shared by actions, substitutions and conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..some_substitutions_type import SomeSubstitutionsType
from ..substitution import Substitution

if TYPE_CHECKING:
    from ..launch_context import LaunchContext
    from ..launch_description_entity import LaunchDescriptionEntity

__all__ = [
    "ensure_argument_type",
    "is_a",
    "is_a_subclass",
    "normalize_to_list_of_entities",
    "normalize_to_list_of_substitutions",
    "perform_substitutions",
]


def is_a(obj: Any, entity_type: type) -> bool:
    """Return whether `obj` is an instance of `entity_type`."""
    return isinstance(obj, entity_type)


def is_a_subclass(obj: Any, entity_type: type) -> bool:
    """Return whether `obj` is an instance or a subclass of `entity_type`."""
    return isinstance(obj, entity_type) or (isinstance(obj, type) and issubclass(obj, entity_type))


def ensure_argument_type(
    argument: Any, types: type | Iterable[type], argument_name: str, caller: str | None = None
) -> None:
    """Raise TypeError unless `argument` is an instance of one of `types`."""
    allowed = (types,) if isinstance(types, type) else tuple(types)
    if not isinstance(argument, allowed):
        names = ", ".join(t.__name__ for t in allowed)
        where = f" of {caller}" if caller else ""
        raise TypeError(
            f"argument '{argument_name}'{where} must be of type {names}, "
            f"got {argument!r} of type {type(argument).__name__}"
        )


def normalize_to_list_of_substitutions(subs: SomeSubstitutionsType) -> list[Substitution]:
    """Return `subs` as a list of substitutions; strings become TextSubstitution.

    Raises TypeError for anything that is neither text nor a substitution.
    """
    from ..substitutions import TextSubstitution

    items = [subs] if isinstance(subs, (str, Substitution)) else list(subs)
    result: list[Substitution] = []
    for item in items:
        if isinstance(item, Substitution):
            result.append(item)
        elif isinstance(item, str):
            result.append(TextSubstitution(text=item))
        else:
            raise TypeError(f"expected text or a substitution, got {item!r} ({type(item)})")
    return result


def perform_substitutions(context: LaunchContext, subs: Iterable[Substitution]) -> str:
    """Perform each substitution and return the concatenation."""
    return "".join(context.perform_substitution(sub) for sub in subs)


def normalize_to_list_of_entities(
    entities: LaunchDescriptionEntity | Iterable[Any] | None,
) -> list[LaunchDescriptionEntity]:
    """Return one entity, or a nested iterable of entities, as a flat list."""
    from ..launch_description_entity import LaunchDescriptionEntity

    if entities is None:
        return []
    if isinstance(entities, LaunchDescriptionEntity):
        return [entities]
    return [flat for entity in entities for flat in normalize_to_list_of_entities(entity)]
