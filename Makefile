# Every target sets up all that it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test demo lint docs coverage wheel clean

test: .venv/ready
	$(BIN)/python -m pytest $(PYTEST_ARGS)

demo: .venv/ready
	$(BIN)/asl-pinn demo --output_dir=out/demo

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

coverage:
	$(MAKE) test PYTEST_ARGS=--cov

# The wheel as users get it: in an environment of its own, away from the sources.
wheel: .venv/ready
	rm -rf out/wheel
	$(BIN)/python -m build --outdir out/wheel
	$(PYTHON) -m venv out/wheel/venv
	out/wheel/venv/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock out/wheel/*.whl
	cd out/wheel && venv/bin/asl-pinn demo --methods=nlls

clean:
	rm -rf .venv out

.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test,docs]'
	touch $@
