"""The recipes of the images: the Dockerfile, and the definition for Apptainer beside it."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HADOLINT = Path(sys.executable).with_name('hadolint')


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding='utf-8')


# --- Dockerfile: its linter, and rules of the places where images run ---


def test_linter():
    done = subprocess.run(
        [HADOLINT, '--failure-threshold', 'style', 'Dockerfile'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in read('Dockerfile').splitlines() if not line.lstrip().startswith('#')]
    joined = re.sub(r'\\\n', ' ', '\n'.join(lines))
    pairs = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name, re.sub(r'\s+', ' ', text)) for name, text in pairs]


def test_instructions_are_known():
    known = {'FROM', 'RUN', 'COPY', 'ENV', 'ARG', 'LABEL', 'WORKDIR', 'ENTRYPOINT'}
    assert {name for name, _ in instructions()} <= known, 'ADD, MAINTAINER and the like are not'
    assert '<<' not in read('Dockerfile'), 'not every builder knows here-documents'


def test_base_images_have_a_tag():
    bases = [text for name, text in instructions() if name == 'FROM']
    assert len(bases) == 2
    for base in bases:
        assert base.split()[0] == 'debian:bookworm-slim'


def test_apt_leaves_nothing_behind():
    runs = [text for name, text in instructions() if name == 'RUN' and 'apt-get' in text]
    assert runs
    for run in runs:
        assert run.startswith('apt-get update && apt-get install -y --no-install-recommends ')
        assert run.endswith('rm -rf /var/lib/apt/lists/*')


def test_pip_follows_the_constraints():
    installs = [
        command.strip()
        for name, text in instructions()
        if name == 'RUN'
        for command in text.split('&&')
        if 'pip install' in command
    ]
    assert len(installs) == 2
    for command in installs:
        assert '--no-cache-dir' in command
        assert '-c constraints.txt' in command or '--no-deps' in command
        words = shlex.split(command)
        assert not {'-e', '--editable'} & set(words)


def test_entry_point():
    entry = [text for name, text in instructions() if name == 'ENTRYPOINT']
    assert entry == ['["/usr/bin/tini", "--", "/usr/local/bin/qsmflow"]']
    links = next(text for name, text in instructions() if name == 'RUN' and 'ln -s' in text)
    assert '/opt/qsmflow/bin/qsmflow ' in links
    assert links.index('/usr/local/bin/') > links.index('/opt/qsmflow/bin/qsmflow ')
    for name in tomllib.loads(read('pyproject.toml'))['project']['scripts']:
        assert f'/opt/qsmflow/bin/{name} ' in links


def test_environment_for_any_user():
    text = ' '.join(text for name, text in instructions() if name == 'ENV')
    values = dict(word.split('=', 1) for word in shlex.split(text))
    for name in ('NO_ET', 'NIPYPE_NO_ET', 'PYTHONNOUSERSITE'):
        assert values[name] == '1'
    assert values['MPLBACKEND'] == 'Agg'
    assert values['HOME'] == '/tmp'
    # Folders for caches are chosen for each user: Apptainer brings the /tmp of the host.
    assert not {'MPLCONFIGDIR', 'NUMBA_CACHE_DIR', 'XDG_CACHE_HOME'} & set(values)
    for name, text in instructions():
        if name == 'WORKDIR':
            assert text.startswith('/')


def test_everything_that_is_copied_exists_and_is_not_ignored():
    allowed = {line[1:] for line in read('.dockerignore').splitlines() if line.startswith('!')}
    for name, text in instructions():
        if name == 'COPY' and '--from' not in text:
            for source in text.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in allowed


def test_everything_that_the_wheel_takes_from_the_source_is_copied():
    """A folder that is missing there is left out of the wheel without a word."""
    wheel = tomllib.loads(read('pyproject.toml'))['tool']['hatch']['build']['targets']['wheel']
    copied = {
        source
        for name, text in instructions()
        if name == 'COPY' and '--from' not in text
        for source in text.split()[:-1]
    }
    assert {*wheel['shared-data'], *wheel['packages']} <= copied


# --- definition for Apptainer: the same steps ---


def stages() -> list[dict[str, str]]:
    """Return the sections of each stage of the definition, header lines under ``header``."""
    found = []
    for part in re.split(r'^(?=Bootstrap:)', read('container/qsmflow.def'), flags=re.M)[1:]:
        lines = [line for line in part.splitlines() if not line.lstrip().startswith('#')]
        text = '\n'.join(['%header', *lines])
        found.append(dict(re.findall(r'^%(\w[^\n]*)\n(.*?)(?=^%|\Z)', text, re.M | re.S)))
    return found


def docker_stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, text in instructions():
        if name == 'FROM':
            found.append([])
        found[-1].append((name, text))
    return found


def commands_of_docker(stage) -> list[str]:
    """Return the commands of a stage as a shell would run them, with its variables."""
    values = {'VERSION': re.search(r'ARG VERSION=(\S+)', read('Dockerfile'))[1]}
    commands = []
    for name, text in stage:
        if name == 'RUN':
            commands += text.split(' && ')
        elif name == 'WORKDIR':
            commands.append(f'cd {text}')
        elif name == 'ENV':
            commands += [f'export {word}' for word in shlex.split(text)]
    for key, value in values.items():
        commands = [command.replace(f'${{{key}}}', value) for command in commands]
    return [command.strip() for command in commands]


def lines_of(section: str) -> list[str]:
    return [line.strip() for line in section.splitlines() if line.strip()]


def test_definition_has_the_stages_of_the_dockerfile():
    for docker, apptainer in zip(docker_stages(), stages(), strict=True):
        header = dict(line.split(': ') for line in lines_of(apptainer['header']))
        assert header['Bootstrap'] == 'docker'
        assert header['From'] == docker[0][1].split()[0]
    assert [lines_of(stage['header'])[2] for stage in stages()] == ['Stage: build', 'Stage: final']


def test_definition_runs_the_commands_of_the_dockerfile():
    build, final = stages()
    docker_build, docker_final = docker_stages()
    assert lines_of(build['post']) == commands_of_docker(docker_build)
    # Of the last stage, ENV is the environment of runs. Bytecode is made anew, see there.
    expected = [
        line for line in commands_of_docker(docker_final) if not line.startswith('export ')
    ]
    expected.remove('cd /tmp')
    *lines, extra = lines_of(final['post'])
    assert lines == expected
    assert extra == '/opt/qsmflow/bin/python -m compileall -q /opt/qsmflow/lib'


def test_definition_copies_the_files_of_the_dockerfile():
    expected = [
        (source, f'/src/{source}')
        for name, text in docker_stages()[0]
        if name == 'COPY'
        for source in text.split()[:-1]
    ]
    build, final = stages()
    assert [tuple(line.split()) for line in lines_of(build['files'])] == expected
    copied = [text for name, text in docker_stages()[1] if name == 'COPY']
    assert copied == [f'--from=build {line}' for line in lines_of(final['files from build'])]


def test_definition_sets_the_environment_of_the_dockerfile():
    text = ' '.join(text for name, text in docker_stages()[1] if name == 'ENV')
    *exports, last = lines_of(stages()[1]['environment'])
    found = [line.removeprefix('export ') for line in exports]
    assert found[0] == 'HOME="${HOME:-/tmp}"'
    assert ['HOME=/tmp', *found[1:]] == shlex.split(text)
    assert last == 'unset PYTHONPATH PYTHONHOME', 'the host may set them'


def test_definition_has_the_labels_of_the_dockerfile():
    text = ' '.join(text for name, text in docker_stages()[1] if name == 'LABEL')
    expected = dict(word.split('=', 1) for word in shlex.split(text))
    # Arguments of definitions are newer than many installations of Apptainer.
    assert expected.pop('org.opencontainers.image.revision') == '${REVISION}'
    version = 'org.opencontainers.image.version'
    assert expected[version] == '${VERSION}'
    expected[version] = re.search(r'ARG VERSION=(\S+)', read('Dockerfile'))[1]
    found = dict(line.split(' ', 1) for line in lines_of(stages()[1]['labels']))
    assert found == expected


def test_definition_starts_what_the_dockerfile_starts():
    entry = next(text for name, text in docker_stages()[1] if name == 'ENTRYPOINT')
    words = re.findall(r'"([^"]+)"', entry)
    assert lines_of(stages()[1]['runscript']) == [f'exec {" ".join(words)} "$@"']


@pytest.mark.parametrize('name', ['post', 'environment', 'runscript', 'test'])
def test_sections_are_shell(name):
    for stage in stages():
        done = subprocess.run(['sh', '-n'], input=stage.get(name, ''), text=True, check=False)
        assert done.returncode == 0


# --- the script that builds and runs the image ---


def test_script_finds_the_sections_that_it_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    import container_test

    for name in ('environment', 'runscript', 'test'):
        assert lines_of(stages()[1][name]) == [
            line for line in lines_of(container_test.section(name)) if not line.startswith('#')
        ]


def test_script_says_what_is_missing(tmp_path):
    words = [sys.executable, ROOT / 'tools/container_test.py', '--storage', tmp_path]
    run = {'capture_output': True, 'text': True, 'check': False}
    done = subprocess.run([*words, 'sing'], **run)
    assert done.returncode == 2
    assert 'unknown step sing; known are base, build,' in done.stderr
    done = subprocess.run([*words, 'base'], **run, env={'PATH': str(tmp_path)})
    assert done.returncode == 1
    assert 'missing: buildah, podman, runc, debootstrap' in done.stderr or 'root' in done.stderr
    assert not list(tmp_path.iterdir())
