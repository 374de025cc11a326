"""pip install . gives the same command line as ./kubewire; Debian's packages are listed in
debian-packages.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
FOLDERS = ("components", "lab", "scenarios", "topologies", "vm")


def runtime_requirements() -> list[str]:
    """The first block of requirements.txt; the second is for tests."""
    block = (ROOT / "requirements.txt").read_text().split("# Tests")[0]
    return [line for line in block.splitlines() if line and not line.startswith("#")]


setup(
    name="kubewire",
    version=(ROOT / "VERSION").read_text().strip(),
    description="Kubernetes networking on real packets: Mininet nodes, namespace pods, a readable control plane",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    # Everything is imported below one name. In a checkout the link src/kubewire stands for this
    # mapping.
    package_dir={"kubewire": "."},
    packages=[
        f"kubewire.{name}" for name in find_packages(include=[f"{folder}*" for folder in FOLDERS])
    ],
    include_package_data=True,
    package_data={
        "": ["*.yaml", "*.yml", "*.json", "*.gz", "*.html", "*.j2", "*.md", "*.css", "*.js"],
        "kubewire.components.agnhost": ["certificates/*"],
        "kubewire.scenarios": ["catalogue/*.md", "catalogue/*/*"],
        "kubewire.topologies": ["examples/*"],
        "kubewire.vm": ["debian-packages.txt", "kernels/uml.config", "kernels/*.h", "guest/*.py"],
    },
    data_files=[("share/kubewire", ["debian-packages.txt"])],  # for kubewire doctor
    install_requires=runtime_requirements(),
    entry_points={
        "console_scripts": ["kubewire=kubewire.lab.__main__:main"],
        "pytest11": ["kubewire=kubewire.scenarios.engine.pytest_plugin"],
        "kubewire.lab_factory": ["mininet=kubewire.lab.handle:LabStarter"],
    },
)
