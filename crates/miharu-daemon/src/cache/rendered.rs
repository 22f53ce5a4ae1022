//! The answers rendered from one collection, each at most once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use miharu_metrics::{Format, Prefix, Scope, encode};
use tokio::sync::OnceCell;

use super::Collected;
use crate::negotiate::Encoding;

/// Answers kept with one collection. Scopes are as many as certificates and queries have, so there is a bound; what is
/// beyond it is rendered anew each time, to the same bytes.
const KEPT_LIMIT: usize = 64;

/// The form of an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rendering {
    pub(crate) format: Format,
    pub(crate) prefix: Prefix,
    pub(crate) scope: Scope,
    pub(crate) encoding: Encoding,
}

/// What was rendered so far.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    /// Held for a look-up; the rendering itself happens in the cell, where others that want the same wait for it.
    kept: Mutex<BTreeMap<Rendering, Arc<OnceCell<Bytes>>>>,
}

impl Rendered {
    fn cell(&self, rendering: &Rendering) -> Arc<OnceCell<Bytes>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = kept.get(rendering) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(OnceCell::new());
        if kept.len() < KEPT_LIMIT {
            kept.insert(rendering.clone(), Arc::clone(&cell));
        }
        cell
    }
}

pub(super) async fn render(collected: &Arc<Collected>, rendering: Rendering) -> Result<Bytes, String> {
    let cell = collected.rendered.cell(&rendering);
    cell.get_or_try_init(|| produce(collected, rendering)).await.cloned()
}

/// A rendering that fails, as when the daemon stops, is no answer: an empty exposition would say that nothing runs.
async fn produce(collected: &Arc<Collected>, rendering: Rendering) -> Result<Bytes, String> {
    let plain = match rendering.encoding {
        Encoding::Identity => None,
        Encoding::Gzip | Encoding::Zstd => {
            let identity = Rendering { encoding: Encoding::Identity, ..rendering.clone() };
            // The plain form is a cell of its own; the recursion is one step deep.
            Some(Box::pin(render(collected, identity)).await?)
        }
    };
    let collected = Arc::clone(collected);
    let work = tokio::task::spawn_blocking(move || match plain {
        Some(plain) => rendering.encoding.compress(plain),
        None => {
            let Rendering { format, prefix, scope, .. } = rendering;
            Bytes::from(encode(&collected.gathered.snapshot, format, prefix, &scope))
        }
    });
    work.await.map_err(|error| error.to_string())
}
