import json
import re
import shutil

import pytest

from qsmflow.report import build_report, html

SERIES = 'sub-01_ses-1_run-1'


def test_page_holds_every_part(subject):
    path = build_report(
        subject, 'sub-01', {'title': 'Demo <set>', 'run': 'x1', 'cfg': '[a]\nb = 1'}
    )
    assert path == subject / 'sub-01.html'
    page = path.read_text(encoding='utf-8')
    assert 'Demo &lt;set&gt;' in page
    for text in ('3 T', '4–16 ms', '1 × 1 × 1.2 mm', '1400 ml', '−4.0 ± 30.0 ppb', 'score 0.90'):
        assert text in page
    titles = re.findall(r'<h3>(.*?)</h3>', page)
    assert titles == [
        'Protocol and input findings', 'Magnitude with the brain mask', 'Susceptibility (χ)',
        'R2*', 'Regions on the susceptibility map', 'Regions of CIT168', 'Methods',
        'Parameters and versions',
    ]  # fmt: skip
    assert 'Dymerska B' in page
    assert 'Milovic C' in page
    assert 'Shmueli K, de Zwart' not in page  # not cited
    assert '0.00015' in page
    assert '<pre>[a]\nb = 1</pre>' in page


def test_page_is_self_contained(subject):
    page = build_report(subject, '01').read_text(encoding='utf-8')
    sources = re.findall(r'\b(?:src|srcset|data|poster)="([^"]*)"', page)
    assert len(sources) == 5
    assert all(source.startswith('data:image/') for source in sources)
    assert not re.search(r'@import|url\(|<link(?! rel="icon" href="data:,")|<script src', page)
    assert "default-src 'none'" in page


def test_messages_are_escaped(subject):
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert '&lt;b&gt;Short&lt;/b&gt; echo.' in page
    assert '<b>Short' not in page


def test_same_files_give_the_same_page(subject):
    first = build_report(subject, '01').read_bytes()
    assert build_report(subject, '01').read_bytes() == first
    assert [p.name for p in subject.iterdir() if p.name.startswith('.')] == []


def test_findings_come_gravest_first_and_alerts_on_top(subject):
    page = build_report(subject, '01').read_text(encoding='utf-8')
    table = page[page.index('findings">') :]
    assert table.index('C21') < table.index('A03')
    alerts = page[page.index('id="alerts"') : page.index('</div>', page.index('id="alerts"'))]
    assert '1 point needs attention' in alerts
    assert 'Phase was scaled' not in alerts


def test_numbers_of_the_table_are_those_of_the_file(subject):
    page = build_report(subject, '01').read_text(encoding='utf-8')
    row = re.search(r'<tr><td class="keep">GPe</td><td>L</td>(.*?)</tr>', page).group(1)
    cells = re.findall(r'<td[^>]*>(.*?)</td>', row)
    assert cells == ['ok', '200', '100%', '100.0', '10.0', '100.0', '5.0', '21.0', '2.0']
    empty = re.search(r'<tr class="flag"><td class="keep">dentate</td><td>R</td>(.*?)</tr>', page)
    assert empty.group(1).count('>n/a<') == 6
    assert '>empty<' in empty.group(1)


def test_a_series_gets_its_own_figures_only(subject, write_series):
    write_series(subject, 'sub-01', methods='Nothing ran.')
    write_series(subject, 'sub-01_ses-1_run-10', session='1', draw=True)
    page = build_report(subject, '01').read_text(encoding='utf-8')
    first, second, third = re.split(r'<h2 id=', page)[1:]
    assert first.count('<figure>') == 0
    assert second.count('<figure>') == 4
    assert third.count('<figure>') == 4
    assert 'run-10_desc' not in second


def test_a_failed_series_says_so(subject, write_series):
    write_series(
        subject,
        'sub-01_ses-2',
        session='2',
        status='failed',
        findings=[{'code': 'B1', 'level': 'ERROR', 'message': 'No phase.', 'remedy': 'Add it.'}],
        registration={'passed': False, 'score': 0.1},
    )
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert '<span class="badge failed">failed</span>' in page
    alerts = re.search(r'<div class="box bad" id="alerts">(.*?)</div>', page, re.DOTALL).group(1)
    assert alerts.index('No phase.') < alerts.index('The registration check failed')
    assert '<em>Add it.</em>' in alerts


@pytest.mark.parametrize('broken', ['{"series": ', '[1, 2]', '{"mask": "none", "findings": null}'])
def test_a_broken_summary_costs_its_facts_not_the_page(subject, broken):
    path = next(subject.glob('**/*_desc-summary_report.json'))
    path.write_text(broken, encoding='utf-8')
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert page.count('<figure>') == 4
    if not broken.endswith('}'):
        assert 'run this subject again' in page


def test_a_broken_table_is_named(subject):
    path = next(subject.glob('**/*_stats.tsv'))
    path.write_text('region\tmean\nGPe\t1\n', encoding='utf-8')
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert 'is not a table of regions' in page


def test_unknown_citation_and_unknown_key_are_shown(subject, write_series):
    write_series(
        subject, 'sub-01', methods='As in [@nobody1900].', extra_fact=3, sign={'flipped': True}
    )
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert 'No bibliography entry for nobody1900' in page
    assert '<h4>Extra fact</h4>3' in page
    assert '<th scope="row">flipped</th><td>yes</td>' in page


def test_nothing_processed_is_said(tmp_path):
    (tmp_path / 'sub-09').mkdir()
    assert 'Nothing to report' in build_report(tmp_path, '09').read_text(encoding='utf-8')
    with pytest.raises(FileNotFoundError, match='sub-10 does not exist'):
        build_report(tmp_path, '10')


def test_specification_of_the_sections():
    spec = json.loads(html._template('report_spec.json'))
    ids = [section['id'] for section in spec['sections']]
    descs = [section['pattern']['desc'] for section in spec['sections']]
    assert len(set(ids)) == len(ids)
    assert len(set(descs)) == len(descs)
    for section in spec['sections']:
        assert set(section) == {'id', 'nav', 'title', 'pattern', 'caption'}
        assert 'Good:' in section['caption']
        assert 'Bad:' in section['caption']


@pytest.fixture
def open_page():
    """Return a function that opens a page in headless Chromium and records what goes wrong."""
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    executable = next(filter(None, map(shutil.which, ('chromium', 'google-chrome'))), None)
    if executable is None:
        pytest.skip('no Chromium on this machine')
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=executable, args=['--no-sandbox', '--disable-gpu']
        )

        def load(path):
            page = browser.new_page(viewport={'width': 1300, 'height': 900})
            page.trouble = []
            page.on('console', lambda m: page.trouble.append(f'console: {m.text}'))
            page.on('pageerror', lambda e: page.trouble.append(f'error: {e}'))
            page.on('requestfailed', lambda r: page.trouble.append(f'failed: {r.url[:80]}'))
            page.on('request', lambda r: page.trouble.append(f'request: {r.url[:80]}')
                    if not r.url.startswith(('file:', 'data:')) else None)  # fmt: skip
            page.goto(path.as_uri())
            return page

        yield load
        browser.close()


def test_page_shows_what_the_data_made_of_the_parameters(subject, write_series):
    write_series(
        subject,
        'sub-01',
        parameters={'inversion': {'method': 'tv', 'reg_weight': None}},
        regularisation={'RegWeight': 1.7133e-4, 'FieldNoise': 9e-4},
        inversion_convergence={'Iterations': 40, 'LastChange': 0.003, 'Converged': False},
    )
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert '<td>1.7e−4 ppm, from the noise of the field</td>' in page
    assert '<th scope="row">iterations</th><td>40</td>' in page
    assert 'Reg Weight' not in page, 'it is not shown a second time'


@pytest.mark.browser
def test_page_opens_from_disk_in_a_browser(subject, open_page):
    page = open_page(build_report(subject, '01'))
    widths = page.evaluate('[...document.images].map(i => i.complete && i.naturalWidth)')
    assert len(widths) == 5
    assert min(widths) > 0
    anchors = page.evaluate(
        '[...document.querySelectorAll("nav a")]'
        '.filter(a => document.getElementById(a.hash.slice(1)) === null).length'
    )
    assert anchors == 0
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')

    table = page.locator('table.sort', has_text='coverage')
    first = table.locator('tbody tr').first
    assert first.locator('td').first.inner_text() == 'caudate'
    head = table.locator('th', has_text='χ mean')
    head.click()
    head.click()
    assert first.locator('td').first.inner_text() == 'dentate'
    assert table.locator('tbody tr').last.locator('td').nth(1).inner_text() == 'R'  # n/a last

    page.locator('figure:not(.chart) img').first.click()
    assert page.locator('dialog img').evaluate('i => i.naturalWidth') > 0
    assert page.locator('dialog').evaluate('d => d.open')
    page.locator('dialog').click()
    assert not page.locator('dialog').evaluate('d => d.open')
    assert page.trouble == []


#: How far a table reaches beyond what shows of it, in pixels.
BEYOND = '[...document.querySelectorAll(".scroll")].map(e => e.scrollWidth - e.clientWidth)'


@pytest.mark.browser
def test_no_column_is_lost_on_paper(subject, open_page):
    page = open_page(build_report(subject, '01'))
    page.emulate_media(media='print')
    page.set_viewport_size({'width': 703, 'height': 1000})  # A4 within its margins
    assert max(page.evaluate(BEYOND)) <= 0
    assert (
        page.locator('.scroll').first.evaluate('e => getComputedStyle(e).overflowX') == 'visible'
    )
    for name in ('h3', '.caption'):
        kept = page.locator(name).first.evaluate('e => getComputedStyle(e).breakAfter')
        assert kept == 'avoid', name
    card = page.locator('section.card').first.evaluate('e => getComputedStyle(e).breakInside')
    assert card == 'auto', 'a card may go on on the next page'


@pytest.mark.browser
def test_verdict_on_a_region_is_seen_at_once(subject, open_page):
    page = open_page(build_report(subject, '01'))
    page.set_viewport_size({'width': 1000, 'height': 900})
    table = page.locator('.scroll', has_text='coverage')
    head = table.locator('th', has_text='Check')
    right = 'e => e.getBoundingClientRect().right'
    assert head.evaluate(right) <= table.evaluate(right)


@pytest.mark.browser
def test_small_screen_has_room_for_findings(subject, open_page):
    page = open_page(build_report(subject, '01'))
    assert page.locator('nav a').first.is_visible()
    page.set_viewport_size({'width': 400, 'height': 900})
    assert not page.locator('nav a').first.is_visible()
    page.locator('nav summary').click()
    assert page.locator('nav a').first.is_visible()
    table = page.locator('table.sort', has_text='Short')
    lines = table.locator('td:visible').evaluate_all('all => all.map(e => e.clientHeight)')
    assert max(lines) < 60
    assert page.evaluate(BEYOND)[0] <= 0
    assert 'What to do: ' in table.locator('td', has_text='Look.').evaluate(
        'e => getComputedStyle(e, "::before").content'
    )
    page.set_viewport_size({'width': 1300, 'height': 900})
    assert page.locator('nav a').first.is_visible()


@pytest.mark.browser
def test_group_page_opens_from_disk_in_a_browser(tmp_path, write_series, open_page):
    from qsmflow.report import build_group

    for i in range(6):
        write_series(tmp_path, f'sub-{i:02d}', shift=2.0 if i == 3 else 0.01 * i)
    page = open_page(build_group(tmp_path)[-1])
    widths = page.evaluate('[...document.images].map(i => i.complete && i.naturalWidth)')
    assert len(widths) == 2
    assert min(widths) > 0
    assert page.trouble == []


def test_a_mask_that_failed_its_check_needs_attention(subject, write_series):
    mask = {'method': 'registration', 'passed': False, 'reasons': ['a volume of 3000 ml']}
    write_series(subject, 'sub-01', mask=mask)
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert 'The check of the brain mask failed.' in page
    assert '>a volume of 3000 ml</td>' in page


def test_an_unwrapping_that_failed_needs_attention(subject, write_series):
    tried = [
        {'Method': name, 'Parameters': {}, 'ResidualShare': share, 'Failed': share > 0.1}
        for name, share in (('romeo', 0.5), ('best_path', 0.01))
    ]
    note = 'unwrapping by romeo failed: large residuals; best_path was used instead'
    facts = {'Requested': 'romeo', 'Method': 'best_path', 'Tried': tried, 'Note': note}
    write_series(subject, 'sub-01', unwrapping=facts)
    page = build_report(subject, '01').read_text(encoding='utf-8')
    alerts = page[: page.index('Phase unwrapping')]
    assert 'Unwrapping by romeo failed: large residuals; best_path was used instead.' in alerts
    assert 'Look at the figure of the total field.' in alerts
    del facts['Note']
    write_series(subject, 'sub-01', unwrapping=facts)
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert 'Look at the figure of the total field.' not in page


def test_evidence_is_no_python(subject, write_series):
    finding = {'code': 'DTE', 'level': 'WARN', 'message': 'wide', 'evidence': {'value': 6.0}}
    write_series(subject, 'sub-01', findings=[finding])
    page = build_report(subject, '01').read_text(encoding='utf-8')
    assert '>value 6</td>' in page
    assert '>Wide<' in page
