"""A fake of NVIDIA's library for a weir under test: tests/support/fakenvml.c, compiled here, told what to answer by a file."""

import os
import shutil
import subprocess

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "fakenvml.c")


class FakeNvml:
    """Lies in `folder`. `library` is None where there is no C compiler to make it with."""

    def __init__(self, folder, **answers):
        self.steer, self.library = os.path.join(folder, "nvml.steer"), None
        self.answer(**answers)
        if shutil.which("cc"):
            library = os.path.join(folder, "libnvidia-ml.so.1")
            subprocess.run(["cc", "-shared", "-fPIC", f'-DSTEER="{self.steer}"', "-o", library, SOURCE], check=True)
            self.library = library

    def answer(self, **answers):
        """What it says from now on, see fakenvml.c; `temperature__1` is said of GPU 1 alone."""
        with open(self.steer + ".new", "w") as out:
            out.writelines(f"{key.replace('__', '.')} {value}\n" for key, value in answers.items())
        os.replace(self.steer + ".new", self.steer)

    def settings(self):
        return {"gpu": {"library": self.library, "interval": "500ms"}} if self.library else {}
