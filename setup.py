"""Build of the compiled kernel: every `robustmq/_kernel/fast/*.pyx` is one extension module.

The kernel is optional: without a C compiler the installation goes on without it, with a
warning, and the server runs on the pure-Python twins. `ROBUSTMQ_REQUIRE_KERNEL=1` makes a
kernel that cannot be built an error. All or nothing: half a kernel is never installed.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
FAST = Path("robustmq/_kernel/fast")
COMPILE_FLAGS = ["-O3", "-g0", "-fno-strict-aliasing", "-fvisibility=hidden"]
PARALLEL = 2


def kernel_extensions() -> list[Extension]:
    """Return one extension for each .pyx; each depends on all .pxd files beside it."""
    headers = sorted(str(FAST / path.name) for path in (HERE / FAST).glob("*.pxd"))
    return [
        Extension(
            f"robustmq._kernel.fast.{path.stem}",
            [str(FAST / path.name)],
            depends=headers,
            extra_compile_args=COMPILE_FLAGS,
        )
        for path in sorted((HERE / FAST).glob("*.pyx"))
    ]


def translate(name: str, sources: list[str], depends: list[str]) -> list[str]:
    """Return the C sources of one extension, translated where it or a .pxd has changed."""
    from Cython.Build import cythonize

    extension = Extension(name, sources, depends=depends)
    return cythonize([extension], compiler_directives={"language_level": "3"})[0].sources


class BuildKernel(build_ext):
    """`build_ext` that compiles what it can, then takes all of the kernel or none of it.

    Called directly (`setup.py build_ext --inplace`) it fails when a module fails, after the
    others were built. In an installation a failure is a warning and a pure install.
    `Extension(optional=True)` is not used since `cythonize` loses it.
    """

    def initialize_options(self) -> None:
        super().initialize_options()
        self.parallel = PARALLEL
        self.failed: list[str] = []

    def run(self) -> None:
        try:
            self._translate()
            super().run()
        except (Exception, SystemExit) as error:
            self.failed.append(str(error) or type(error).__name__)
        if self.failed:
            self._give_up()

    def _translate(self) -> None:
        """Turn each extension's .pyx into C, in place, for setuptools has marked the objects."""
        translated = []
        with ProcessPoolExecutor(PARALLEL) as pool:
            jobs = [
                pool.submit(translate, each.name, list(each.sources), list(each.depends))
                for each in self.extensions
            ]
            for extension, job in zip(self.extensions, jobs, strict=True):
                try:
                    extension.sources = job.result()
                    translated.append(extension)
                except Exception as error:
                    self.failed.append(f"{extension.name} does not translate to C ({error!r})")
        self.extensions = translated

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as error:
            self.failed.append(f"{ext.name}: {error}")

    def copy_extensions_to_source(self) -> None:
        every = self.extensions
        self.extensions = [e for e in every if self._binary(e).exists()]
        super().copy_extensions_to_source()
        self.extensions = every

    def _binary(self, extension: Extension) -> Path:
        return Path(self.build_lib, self.get_ext_filename(extension.name))

    def _give_up(self) -> None:
        reason = "; ".join(self.failed)
        by_hand = self.inplace and not getattr(self, "editable_mode", False)
        if by_hand or os.environ.get("ROBUSTMQ_REQUIRE_KERNEL") == "1":
            sys.exit(f"robustmq: the kernel cannot be built: {reason}")
        for directory in (HERE, Path(self.build_lib)):
            for binary in (directory / FAST).glob("*.so"):
                binary.unlink()
        self.extensions = []
        self.warn(
            "robustmq: the compiled kernel cannot be built, the pure-Python twins are "
            f"installed (slower): {reason}"
        )


setup(ext_modules=kernel_extensions(), cmdclass={"build_ext": BuildKernel})
