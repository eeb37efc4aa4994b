"""The workflow class of the package: a nipype workflow that can describe and rewire itself."""

import logging
import os
from collections.abc import Iterable

from nipype.interfaces import utility
from nipype.pipeline import engine as pe
from traits.api import TraitError

MapNode = pe.MapNode
JoinNode = pe.JoinNode

# nipype's plugins for clusters name jobs after it, and containers and cron do not set it.
os.environ.setdefault('LOGNAME', os.environ.get('USER', 'qsmflow'))


class Node(pe.Node):
    """A node that fails alone when its input or its cache is gone.

    nipype looks at caches and sets paths of the input in the main process, where an error would
    end the run for all nodes.
    """

    _gone: str = ''
    _runs: bool = False

    def is_cached(self, rm_outdated=False):
        """Return whether there is a cached result, and whether it is up to date."""
        try:
            return super().is_cached(rm_outdated=rm_outdated)
        except Exception:
            logging.getLogger(__name__).debug('no cache of %s', self.fullname, exc_info=True)
            return False, False

    def set_input(self, parameter, val):
        """Set an input; a file that is gone is told when the node runs."""
        try:
            super().set_input(parameter, val)
        except TraitError:
            lost = missing_files(val)
            if self._runs or not lost:
                raise
            self._gone = f'{", ".join(lost)} was there when the input was checked, and is gone now'

    def run(self, updatehash=False):
        """Run the node.

        Raises
        ------
        FileNotFoundError
            If a file of the input was removed after the graph was built.
        """
        if self._gone:
            raise FileNotFoundError(self._gone)
        self._runs = True
        return super().run(updatehash=updatehash)


def missing_files(value) -> list[str]:
    """Return the absolute paths in a value, or in a list of values, where there is no file.

    Examples
    --------
    >>> missing_files(['/no/such/file.nii', 'name', 3])
    ['/no/such/file.nii']
    """
    values = value if isinstance(value, list | tuple) else [value]
    return [
        item
        for item in values
        if isinstance(item, str) and os.path.isabs(item) and not os.path.exists(item)
    ]


class Workflow(pe.Workflow):
    """A nipype workflow with a methods sentence and a stage name.

    Attributes
    ----------
    __desc__ : str
        Past-tense sentences for the methods section, with ``[@key]`` citations.
    __postdesc__ : str
        The same, for what comes after the workflows inside.
    tag : str
        The stage that this workflow computes; ``splice`` finds it by this.
    optional_inputs, optional_outputs : tuple of str
        Doors that a workflow which replaces this one may lack: inputs that only some methods
        ask for, outputs that are for the record.
    """

    __desc__: str = ''
    __postdesc__: str = ''
    tag: str = ''
    optional_inputs: tuple[str, ...] = ()
    optional_outputs: tuple[str, ...] = ()

    def visit_desc(self) -> str:
        """Collect the methods sentences of this workflow and of those inside it, in graph order.

        Returns
        -------
        str
            One paragraph for each workflow that has a description; none is said twice.
        """
        from networkx import topological_sort

        parts = [self.__desc__.strip()]
        for node in topological_sort(self._graph):
            if isinstance(node, Workflow):
                parts += node.visit_desc().split('\n\n')
        parts.append(self.__postdesc__.strip())
        return '\n\n'.join(dict.fromkeys(part for part in parts if part))

    def find(self, tag: str) -> 'Workflow':
        """Return the workflow inside this one, at any depth, that carries ``tag``.

        Raises
        ------
        KeyError
            If there is none; the message names the tags that exist.
        """
        found = {inner.tag: inner for _, inner in self._tagged()}
        if tag not in found:
            raise KeyError(f'no stage is tagged {tag!r}; this graph has {sorted(found)}')
        return found[tag]

    def splice(self, replacement: 'Workflow') -> 'Workflow':
        """Replace the stage that carries the replacement's tag, keeping every connection.

        Parameters
        ----------
        replacement : Workflow
            A workflow whose ``tag`` names the stage to replace, and whose ``inputnode`` and
            ``outputnode`` have at least the fields that are connected, but for those that the
            stage calls optional.

        Returns
        -------
        Workflow
            This workflow, changed in place.

        Raises
        ------
        KeyError
            If no stage carries that tag.
        """
        for parent, stage in self._tagged():
            if stage.tag != replacement.tag:
                continue
            replacement.name = stage.name
            graph = parent._graph
            edges = [
                (source, target, list(data['connect']))
                for source, target, data in graph.edges(data=True)
                if stage in (source, target)
            ]
            for source, target, links in edges:
                parent.disconnect([(source, target, links)])
            parent.remove_nodes([stage])
            parent.add_nodes([replacement])
            for source, target, links in edges:
                if target is stage:
                    target, door = replacement, replacement.get_node('inputnode')
                    links = _kept(links, 1, door, stage.optional_inputs)
                else:
                    source, door = replacement, replacement.get_node('outputnode')
                    links = _kept(links, 0, door, stage.optional_outputs)
                if links:
                    parent.connect([(source, target, links)])
            return self
        self.find(replacement.tag)
        raise AssertionError('unreachable: find raises for an unknown tag')

    def _tagged(self) -> Iterable[tuple['Workflow', 'Workflow']]:
        """Yield ``(parent, workflow)`` for every tagged workflow at any depth."""
        for node in list(self._graph.nodes()):
            if isinstance(node, Workflow):
                if node.tag:
                    yield self, node
                yield from node._tagged()


def _kept(links: list, end: int, node: Node, optional: tuple[str, ...]) -> list:
    """Return the links but those to or from optional fields that a node does not have."""
    left_out = set(optional) - set(node.inputs.copyable_trait_names())
    names = [link[end][0] if isinstance(link[end], tuple) else link[end] for link in links]
    return [
        link
        for name, link in zip(names, links, strict=True)
        if name.rpartition('.')[2] not in left_out
    ]


def identity(name: str, fields: list[str], **values) -> Node:
    """Return a node that passes its fields through: the inputnode or outputnode of a workflow.

    Parameters
    ----------
    name : str
        ``'inputnode'`` or ``'outputnode'`` as a rule.
    fields : list of str
        Names of the fields.
    **values
        Fields that have a value from the start.

    Returns
    -------
    Node
    """
    return Node(utility.IdentityInterface(fields=fields, **values), name=name)
