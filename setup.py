"""What setuptools builds and what it needs; everything else that is said of the project stands in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# A package index has no files beside the page: pictures go, and a link to a file becomes its name.
README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
README = re.sub(r"!\[[^]]*\]\((?!http)[^)]*\)\n+", "", README)
README = re.sub(r"\[([^]]*)\]\((?!http)([^)]*)\)", r"\1 (`\2`)", README)

ONNX, PARQUET, CLUSTER = ["onnx>=1.16", "onnxruntime>=1.20"], ["pyarrow>=15"], ["dask>=2024.5", "distributed>=2024.5"]
DOCS = ["sphinx>=8.0", "myst-parser>=4.0", "furo>=2024.8"]

setup(
    long_description=README,
    long_description_content_type="text/markdown",
    packages=find_packages(include=["sram*", "simulator*", "neuralfuse*"]),
    package_data={
        "": [
            "**/py.typed",
            "**/*.pyi",
            "**/*.csv",
            "**/*.json",
            "**/*.yaml",
            "**/*.j2",
            "**/*.sv",
            "**/*.cpp",
        ]
    },
    install_requires=[
        "numpy>=1.26",
        "numba>=0.60",
        "scipy>=1.11",
        "pandas>=2.1",
        "matplotlib>=3.8",
        "torch>=2.4",
        "pydantic>=2.12",
        "PyYAML>=6.0",
        "typer>=0.12",
        "rich>=13.0",
        "moocore>=0.1.7",
        "safetensors>=0.4.3",
        "scikit-learn>=1.4",
        "threadpoolctl>=3",
        "Jinja2>=3.1",
        "plotly>=5.20",
        "pillow>=10.0",
    ],
    extras_require={
        "onnx": ONNX,
        "parquet": PARQUET,
        "cluster": [*CLUSTER, "dask-jobqueue>=0.8.5"],
        "docs": DOCS,
        "series": ["aeon>=1.0"],
        "mutants": ["cosmic-ray>=8.7"],
        "dev": [
            *ONNX,
            *PARQUET,
            *CLUSTER,
            *DOCS,
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "pytest-cov>=5.0",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.10",
            "import-linter>=2.5",
            "galois>=0.4",
            "ml_dtypes>=0.5",
            "types-PyYAML",
            "build>=1.0",
        ],
    },
)
