"""Makes the Auto classes know our model without importing them: command-line help has to stay fast.

The modules of our configuration and our model register themselves when they are imported. Here is only the
trigger: they are imported as soon as the Auto module that they extend has been.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXTENSIONS = {
    "transformers.models.auto.configuration_auto": "nlptrain.models.configuration",
    "transformers.models.auto.modeling_auto": "nlptrain.models.modeling",
}


class _ThenImport(Loader):
    """Executes a module with its real loader, then imports our extension of it."""

    def __init__(self, real: Loader, extension: str, finder: "_ImportHook") -> None:
        self.real, self.extension, self.finder = real, extension, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module must look as if nobody had stood in between: inspect and importlib.resources ask its loader.
        module.__loader__ = self.real
        if module.__spec__ is not None:
            module.__spec__.loader = self.real
        self.real.exec_module(module)
        self.finder.done(module.__name__)
        importlib.import_module(self.extension)


class _ImportHook(MetaPathFinder):
    """Finds only the awaited modules, through the other finders, and leaves `sys.meta_path` after the last one."""

    def __init__(self, awaited: dict[str, str]) -> None:
        self.awaited = awaited

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.awaited:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenImport(spec.loader, self.awaited[fullname], self)
        return spec

    def done(self, fullname: str) -> None:
        self.awaited.pop(fullname, None)
        if not self.awaited and self in sys.meta_path:
            sys.meta_path.remove(self)


def register() -> None:
    """Teach `AutoConfig` and the Auto classes of sequence and token classification the model type ``nlptrain``.

    Takes effect at once where transformers' Auto modules are loaded, otherwise as soon as they are. Harmless to repeat.
    """
    for target, extension in EXTENSIONS.items():
        if target in sys.modules:
            importlib.import_module(extension)
    awaited = {target: extension for target, extension in EXTENSIONS.items() if target not in sys.modules}
    if awaited and not any(isinstance(finder, _ImportHook) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ImportHook(awaited))
