"""What pyproject.toml cannot say: the rooms travel in the wheel under `headway/_app/<room>`.

They stay real top-level folders of the checkout, imported by bare name inside Headway's own processes
(`headway/_launch.py`); the wheel exposes one name, `headway` (docs/decisions/0001).
"""

from setuptools import find_namespace_packages, setup

ROOMS = ("activities", "adapters", "api", "store", "temporal", "web", "workflows")

own = find_namespace_packages(include=["headway", "headway.*"], exclude=["headway._app*", "*__pycache__*"])
rooms = find_namespace_packages(
    include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")], exclude=["*__pycache__*"]
)

setup(
    packages=[*own, *(f"headway._app.{package}" for package in rooms)],
    package_dir={f"headway._app.{room}": room for room in ROOMS},
    package_data={"": ["*"]},
    exclude_package_data={"": ["ruff.toml", "*.pyc"]},
)
