"""Pages of the documentation that are made from the code when it is built."""

import api
import diagram
import flag_tables
import mathml
import model_tables
import notebooks
import results
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the API reference into the navigation."""
    pages = [{title: path} for path, (title, _) in api.pages().items()]
    config.nav = [*config.nav, {"API reference": pages}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated."""
    contents: dict[str, str | bytes] = {path: text for path, (_, text) in api.pages().items()}
    contents |= notebooks.pages()
    contents |= results.pages()
    contents["flags.md"] = flag_tables.page()
    contents["modules.svg"] = diagram.svg()
    for path, content in contents.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the tables that the code has."""
    return model_tables.fill(markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn TeX into MathML, which browsers draw by themselves."""
    return mathml.convert(html)
