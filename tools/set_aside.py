"""Packages that are imported once for many processes, and that each of these finds when it imports them, and not before."""

import importlib.abc
import importlib.util
import sys


class SetAside(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of one package that are taken out of `sys.modules`, until the package is imported."""

    def __init__(self, package, again):
        self.package = package
        self.again = again
        names = [name for name in sys.modules if name == package or name.startswith(f'{package}.')]
        self.modules = {name: sys.modules.pop(name) for name in names}
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name == self.package:
            sys.meta_path.remove(self)
            self.spec = self.modules[name].__spec__
            return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec):
        sys.modules.update(self.modules)
        return self.modules[self.package]

    def exec_module(self, module):
        module.__spec__ = self.spec
        self.again()  # what importing does to the process
