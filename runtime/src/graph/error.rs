//! What a graph cannot be.

use auscult_kernels::{ShapeError, TensorDesc};

/// What a graph cannot be.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// An op refuses its arguments.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An edit names a site that the graph does not pass.
    #[error("site `{site}` does not exist in this graph; nearest: {nearest}")]
    UnknownSite {
        /// What was asked for.
        site: String,
        /// The sites most like it.
        nearest: String,
    },
    /// Two sites, inputs or outputs of one name.
    #[error("graph: {kind} `{name}` is there twice")]
    Duplicate {
        /// Site, input or output.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An insert that changes the type or shape at its site.
    #[error("site `{site}`: an inserted op yields {got}, expected {want} as at the site")]
    InsertShape {
        /// The site.
        site: String,
        /// What the op yields.
        got: TensorDesc,
        /// What stands there.
        want: TensorDesc,
    },
    /// An insert that reads what no insert before it made.
    #[error("site `{site}`: an inserted op reads what stands {back} inserts before it, where there is none")]
    Beside {
        /// The site.
        site: String,
        /// How far back.
        back: usize,
    },
    /// Another number of names than an inserted op makes outputs.
    #[error(
        "site `{site}`: an inserted op writes {written} slots, expected one for each of the names {names}"
    )]
    Outputs {
        /// The site.
        site: String,
        /// How many slots it writes.
        written: usize,
        /// The names.
        names: String,
    },
    /// An insert that would change a constant, and so every later run.
    #[error("site `{site}`: {op} updates its value in place, but a constant stands there")]
    InsertConstant {
        /// The site.
        site: String,
        /// The kernel.
        op: &'static str,
    },
    /// A tensor to write into that has not the result's type and shape.
    #[error("graph: {op} yields {want}, which cannot go into a tensor of {got}")]
    Into {
        /// The kernel.
        op: &'static str,
        /// The tensor's.
        got: TensorDesc,
        /// The result's.
        want: TensorDesc,
    },
    /// A view with another number of elements.
    #[error("graph: a view of {from} as {to} has another number of elements")]
    View {
        /// Shape of the value.
        from: TensorDesc,
        /// Shape asked for.
        to: TensorDesc,
    },
}

/// The three names most like `wanted`, joined with commas.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let mut ranked: Vec<_> = names.map(|name| (distance(wanted, name), name)).collect();
    ranked.sort();
    ranked.iter().take(3).map(|(_, name)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Levenshtein's edit distance, by characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
