import pytest

from qsmflow.engine import Workflow, identity


def stage(tag, name, text=''):
    workflow = Workflow(name=name)
    workflow.tag = tag
    workflow.__desc__ = text
    inner, outer = identity('inputnode', ['x']), identity('outputnode', ['y'])
    workflow.connect(inner, 'x', outer, 'y')
    return workflow


@pytest.fixture
def outer():
    workflow = Workflow(name='outer_wf')
    workflow.__desc__ = 'Outer.'
    first, second = stage('first', 'first_wf', 'First.'), stage('second', 'second_wf', 'Second.')
    sink = identity('outputnode', ['y'])
    workflow.connect(first, 'outputnode.y', second, 'inputnode.x')
    workflow.connect(second, 'outputnode.y', sink, 'y')
    return workflow


def test_description_follows_the_graph(outer):
    assert outer.visit_desc() == 'Outer.\n\nFirst.\n\nSecond.'


def test_equal_sentences_are_said_once():
    workflow = Workflow(name='w')
    workflow.add_nodes([stage('a', 'a', 'Same.'), stage('b', 'b', 'Same.')])
    assert workflow.visit_desc() == 'Same.'


def test_sentences_that_two_subjects_share_are_said_once(outer):
    first, second = Workflow(name='one'), Workflow(name='two')
    first.add_nodes([stage('a', 'a', 'Same.'), stage('b', 'b', 'Only the first.')])
    second.add_nodes([stage('a', 'a', 'Same.')])
    outer.add_nodes([first, second])
    assert outer.visit_desc().count('Same.') == 1


def test_last_sentence_follows_the_workflows_inside(outer):
    outer.__postdesc__ = 'Last.'
    assert outer.visit_desc() == 'Outer.\n\nFirst.\n\nSecond.\n\nLast.'


def test_splice_keeps_connections(outer):
    replacement = stage('second', 'mine_wf', 'Mine.')
    outer.splice(replacement)
    assert outer.visit_desc() == 'Outer.\n\nFirst.\n\nMine.'
    assert 'second_wf.inputnode' in outer.list_node_names()
    edges = [
        (a.name, b.name, d['connect'])
        for a, b, d in outer._graph.edges(data=True)
        if replacement in (a, b)
    ]
    assert ('first_wf', 'second_wf', [('outputnode.y', 'inputnode.x')]) in edges
    assert ('second_wf', 'outputnode', [('outputnode.y', 'y')]) in edges


def test_splice_reaches_inner_workflows(outer):
    top = Workflow(name='top')
    top.add_nodes([outer])
    top.splice(stage('second', 'mine_wf', 'Mine.'))
    assert 'Mine.' in top.visit_desc()


def test_unknown_tag_names_the_known_ones(outer):
    with pytest.raises(KeyError, match=r"'third'.*'first', 'second'"):
        outer.splice(stage('third', 'third_wf'))
