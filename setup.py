"""Package metadata; `pyproject.toml` holds only the settings of ruff and pytest."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
# The repository's address, "" as long as it has none: then nothing that is shown names one. `python notebooks/set_address.py`
# writes it into the notebooks.
URL = ""
LINKS = {"Changes": f"{URL}/blob/main/CHANGELOG.md", "Issues": f"{URL}/issues"} if URL else {}
VERSION = re.search(r'__version__ = "(.*)"', (ROOT / "mixaug_jax/core/__init__.py").read_text())[1]

setuptools.setup(
    name="mixaug_jax",
    version=VERSION,
    description="Do mixed-sample augmentations make networks harder for people to understand?",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The mixaug_jax authors",
    url=URL,
    project_urls=LINKS,
    keywords=["data augmentation", "interpretability", "network dissection", "attribution", "JAX"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    # The configs stand beside the package in a clone, and go into it where it is installed.
    packages=[
        *setuptools.find_packages(include=["mixaug_jax", "mixaug_jax.*"]),
        "mixaug_jax.configs",
    ],
    package_dir={"mixaug_jax.configs": "configs"},
    entry_points={"console_scripts": ["mixaug=mixaug_jax.main:entry"]},
    package_data={
        "mixaug_jax": ["py.typed"],
        "mixaug_jax.models": ["*.json"],
        "mixaug_jax.papers.deep_taylor": ["*.npz"],
        "mixaug_jax.report": ["*.bib"],
        "mixaug_jax.draw": ["*.css", "*.js", "templates/*"],
    },
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "grain>=0.2.18",
        "array-record>=0.8",
        "tensorflow-datasets>=4.9.10",
        "importlib-resources",  # tensorflow-datasets needs it to write array_record and does not say so
        "pillow",
        "numpy",
        "scipy",
        "ml-collections>=1.1",
        "clu>=0.0.12",
        "absl-py",
        "matplotlib",
        "tqdm",
        "jaxtyping>=0.3",
        "jinja2",
        "safetensors>=0.8",
        "soundfile",
    ],
    extras_require={
        "test": [
            "pytest",
            "pytest-xdist",
            "beartype",
            "ruff",
            "tensorboardX",
            "playwright",
            "submitit",
            "nbclient",
            "ipykernel",
            "pandas",
            "datasets",
        ],
        "frames": ["pandas"],
        "hub": ["huggingface_hub", "datasets"],
        "docs": ["mkdocs-material", "mkdocstrings[python]"],
        "slurm": ["submitit"],
        "tpu": ["jax[tpu]"],
        "tensorboard": ["tensorboardX"],
        "prepare": ["tensorflow-cpu"],
        "trees": ["scikit-learn"],
        "bench": ["torch", "captum", "opencv-contrib-python-headless", "gco-wrapper"],
    },
)
