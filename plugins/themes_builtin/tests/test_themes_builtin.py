import shared_record_themes_builtin as plugin

from shared_record.plugin import ThemeRoot


def test_one_root_with_the_three_themes():
    (root,) = plugin.register_theme_roots()
    assert isinstance(root, ThemeRoot)
    assert {path.name for path in root.path.iterdir() if path.is_dir()} == {"default", "nocturne", "broadsheet"}
    assert all((root.path / name / "theme.toml").is_file() for name in ("default", "nocturne", "broadsheet"))


def test_the_hook_is_marked():
    assert hasattr(plugin.register_theme_roots, "shared_record_impl")


def test_a_wheel_s_own_copy_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin, "_PACKAGED", tmp_path)
    assert plugin.register_theme_roots()[0].path == tmp_path
