//! The graph of an app: ingresses, functions and egresses, and what may flow between them.
//!
//! ```
//! use statefn_core::{graph::{Graph, Notation}, program::{Program, ProgramSpec}};
//! let program = Program::link(ProgramSpec { app: "empty".into(), ..ProgramSpec::default() }).unwrap();
//! assert_eq!(Graph::of(&program).written(Notation::Mermaid), "flowchart LR\n");
//! ```

use std::fmt::Write;

use crate::program::Program;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ingress.
    Ingress,
    /// A function.
    Function,
    /// An egress.
    Egress,
}

impl Kind {
    /// How it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Function => "function",
            Self::Egress => "egress",
        }
    }
}

/// How a graph is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notation {
    /// A line for each edge.
    Text,
    /// The language of Graphviz.
    Dot,
    /// The language of Mermaid.
    Mermaid,
}

impl Notation {
    /// The notation of this name: `text`, `dot` or `mermaid`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "dot" => Some(Self::Dot),
            "mermaid" => Some(Self::Mermaid),
            _ => None,
        }
    }
}

/// The nodes of an app, and what may flow from one to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    /// The nodes: ingresses, functions, egresses, each by name.
    pub nodes: Vec<(Kind, String)>,
    /// The edges, by places of nodes.
    pub edges: Vec<(usize, usize)>,
}

impl Graph {
    /// The graph of a program, without the dead letters, to which everything leads.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        let mut graph = Self::default();
        for ingress in &program.ingresses {
            let from = graph.node(Kind::Ingress, ingress.name);
            for target in &ingress.targets {
                graph.connect(from, Kind::Function, target.name);
            }
        }
        for function in &program.functions {
            let from = graph.node(Kind::Function, function.spec.name);
            for target in function.spec.sends {
                graph.connect(from, Kind::Function, target.name);
            }
            for egress in &function.spec.emits {
                graph.connect(from, Kind::Egress, egress.name);
            }
        }
        graph
    }

    fn node(&mut self, kind: Kind, name: &str) -> usize {
        let known = self.nodes.iter().position(|node| (node.0, node.1.as_str()) == (kind, name));
        known.unwrap_or_else(|| {
            self.nodes.push((kind, name.to_owned()));
            self.nodes.len() - 1
        })
    }

    fn connect(&mut self, from: usize, kind: Kind, to: &str) {
        let to = self.node(kind, to);
        if !self.edges.contains(&(from, to)) {
            self.edges.push((from, to));
        }
    }

    /// Writes it down.
    #[must_use]
    pub fn written(&self, notation: Notation) -> String {
        match notation {
            Notation::Text => self.text(),
            Notation::Dot => self.dot(),
            Notation::Mermaid => self.mermaid(),
        }
    }

    fn text(&self) -> String {
        let name = |at: usize| format!("{} {}", self.nodes[at].0.name(), self.nodes[at].1);
        let mut text = String::new();
        for (from, to) in &self.edges {
            text += &format!("{} -> {}\n", name(*from), name(*to));
        }
        let is_alone = |at: &usize| !self.edges.iter().any(|(from, to)| from == at || to == at);
        for at in (0..self.nodes.len()).filter(is_alone) {
            text += &format!("{}\n", name(at));
        }
        text
    }

    fn dot(&self) -> String {
        let mut dot = String::from("digraph app {\n  rankdir=LR;\n");
        for (at, (kind, name)) in self.nodes.iter().enumerate() {
            let shape = match kind {
                Kind::Ingress => "cds",
                Kind::Function => "box",
                Kind::Egress => "note",
            };
            // Writing into a text does not fail.
            let _ = writeln!(dot, "  n{at} [label=\"{}\", shape={shape}];", name.replace(['"', '\\'], "_"));
        }
        for (from, to) in &self.edges {
            let _ = writeln!(dot, "  n{from} -> n{to};");
        }
        dot + "}\n"
    }

    fn mermaid(&self) -> String {
        let mut mermaid = String::from("flowchart LR\n");
        for (at, (kind, name)) in self.nodes.iter().enumerate() {
            let (open, close) = match kind {
                Kind::Ingress => ("[/", "/]"),
                Kind::Function => ("[", "]"),
                Kind::Egress => ("[\\", "\\]"),
            };
            // Writing into a text does not fail.
            let _ = writeln!(mermaid, "  n{at}{open}\"{}\"{close}", name.replace('"', "_"));
        }
        for (from, to) in &self.edges {
            let _ = writeln!(mermaid, "  n{from} --> n{to}");
        }
        mermaid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let node = |kind, name: &str| (kind, name.to_owned());
        Graph {
            nodes: vec![
                node(Kind::Ingress, "sales"),
                node(Kind::Function, "shop/till"),
                node(Kind::Egress, "sums"),
                node(Kind::Function, "shop/alone"),
            ],
            edges: vec![(0, 1), (1, 1), (1, 2)],
        }
    }

    #[test]
    fn every_notation_has_every_node_and_edge() {
        let text = "ingress sales -> function shop/till\nfunction shop/till -> function shop/till\n\
                    function shop/till -> egress sums\nfunction shop/alone\n";
        assert_eq!(graph().written(Notation::Text), text);
        let dot = "digraph app {\n  rankdir=LR;\n  n0 [label=\"sales\", shape=cds];\n  n1 [label=\"shop/till\", shape=box];\n  \
                   n2 [label=\"sums\", shape=note];\n  n3 [label=\"shop/alone\", shape=box];\n  n0 -> n1;\n  n1 -> n1;\n  n1 -> n2;\n}\n";
        assert_eq!(graph().written(Notation::Dot), dot);
        let mermaid = "flowchart LR\n  n0[/\"sales\"/]\n  n1[\"shop/till\"]\n  n2[\\\"sums\"\\]\n  n3[\"shop/alone\"]\n  \
                       n0 --> n1\n  n1 --> n1\n  n1 --> n2\n";
        assert_eq!(graph().written(Notation::Mermaid), mermaid);
    }
}
