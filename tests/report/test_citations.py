import re

import pytest

from qsmflow.algorithms import catalog
from qsmflow.report import citations

BIBLIOGRAPHY = citations.bibliography()


def test_every_entry_was_parsed():
    from importlib.resources import files

    source = (files('qsmflow') / 'data' / 'boilerplate.bib').read_text(encoding='utf-8')
    keys = re.findall(r'^@\w+\{([^,]+),', source, re.MULTILINE)
    assert sorted(BIBLIOGRAPHY) == sorted(set(keys))
    assert len(keys) == len(set(keys)), 'a key occurs twice'
    assert keys == sorted(keys), 'entries are kept in alphabetical order'


@pytest.mark.parametrize('key', sorted(BIBLIOGRAPHY))
def test_an_entry_is_complete(key):
    entry = BIBLIOGRAPHY[key]
    assert entry.get('journal') or entry.get('booktitle')
    if entry['kind'] != 'inproceedings':
        assert ('doi' in entry) is (entry.get('note') not in ('no DOI', 'DOI not verified'))
    doi = entry.get('doi', '10.1000/none')
    assert re.fullmatch(r'10\.\d{4,9}/\S+', doi)
    assert re.fullmatch(rf'[a-z]+{entry["year"]}[a-z]*', key)
    text = citations.reference(key)
    assert text.endswith(f'doi:{doi}') is ('doi' in entry)
    assert not re.search(r'[{}\\]|--| ;|\.\.', text)


def test_no_two_entries_share_a_doi():
    dois = [entry['doi'].lower() for entry in BIBLIOGRAPHY.values() if 'doi' in entry]
    assert len(dois) == len(set(dois))


def test_the_citations_of_every_method_exist():
    cited = [
        key for stage in catalog.STAGES.values() for m in stage.values() for key in m.citations
    ]
    assert cited
    assert set(cited) <= set(BIBLIOGRAPHY)


def test_names_with_accents_and_organisations_read_well():
    assert 'Marques JP' in citations.reference('marques2021')
    assert 'José' in BIBLIOGRAPHY['bilgic2024']['author']
    assert 'Schweser F, Deistung A, Lehr BW, Reichenbach JR' in citations.reference('schweser2011')
    assert citations.reference('bilgic2024').startswith('QSM Consensus Organization Committee,')
    assert 'Capotă' in BIBLIOGRAPHY['gorgolewski2017']['author']


def test_written_files_hold_what_the_text_cites_and_nothing_else(tmp_path):
    text = 'Inverted with TKD [@shmueli2009] after V-SHARP [@li2011; @wu2012] [@shmueli2009].'
    markdown, bibtex, page = citations.write_citations(text, tmp_path / 'logs')
    content = markdown.read_text(encoding='utf-8')
    assert '(Shmueli et al. 2009) after V-SHARP (Li et al. 2011; Wu et al. 2012)' in content
    assert re.findall(r'^(\d)\. ', content, re.MULTILINE) == ['1', '2', '3']
    keys = re.findall(r'^@\w+\{([^,]+),', bibtex.read_text(encoding='utf-8'), re.MULTILINE)
    assert keys == ['li2011', 'shmueli2009', 'wu2012']
    html = page.read_text(encoding='utf-8')
    assert html.count('<li>') == 3
    assert 'TKD <span class="cite" title="Shmueli et al. 2009">[1]</span>' in html
    names = ['CITATION.bib', 'CITATION.html', 'CITATION.md']
    assert sorted(p.name for p in (tmp_path / 'logs').iterdir()) == names


def test_without_the_page_none_of_an_earlier_run_stays(tmp_path):
    citations.write_citations('Earlier.', tmp_path)
    citations.write_citations('Later.', tmp_path, html=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['CITATION.bib', 'CITATION.md']


def test_an_unknown_key_stops_before_anything_is_written(tmp_path):
    with pytest.raises(citations.CitationError, match='no entry for nobody1900'):
        citations.write_citations('See [@li2011; @nobody1900].', tmp_path / 'logs')
    assert not (tmp_path / 'logs').exists()


def test_html_is_escaped_and_numbered():
    html, keys = citations.to_html(
        '<script>x</script> & `a<b` [@wu2012]\n\n**B** [@li2011; @wu2012]'
    )
    assert keys == ['wu2012', 'li2011']
    assert '<script>' not in html
    assert '<code>a&lt;b</code>' in html
    assert '>[1]<' in html
    assert '>[2, 1]<' in html
    assert html.count('<p>') == 2


def test_a_text_without_citations_or_with_an_address_is_left_alone():
    assert citations.citations('mail me@example.org or R2* [1] @here') == []
    assert citations.to_markdown('Plain.') == 'Plain.\n'
    assert citations.to_html('')[0] == ''
    assert 'R2* and T2* maps' in citations.to_html('R2* and T2* maps')[0]
