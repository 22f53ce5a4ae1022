//! The answers rendered from one collection, each at most once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use miharu_metrics::{Format, Prefix, Scope, encode};
use tokio::sync::OnceCell;

use super::Collected;
use crate::negotiate::Encoding;
use crate::respond::ApiError;
use crate::unread::{Made, Recipient};

/// How many bytes of answers about some projects are kept with one collection. Scopes are as many as certificates and
/// queries have, so there is a bound; what is beyond it is rendered anew each time, to the same bytes. Answers about all
/// projects, of which there are but a few forms, are always kept.
const KEPT_LIMIT: usize = 16 * 1024 * 1024;
/// What an answer takes beside its body and the names of its projects, about.
const OVERHEAD: usize = 256;

/// The form of an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rendering {
    pub(crate) format: Format,
    pub(crate) prefix: Prefix,
    pub(crate) encoding: Encoding,
    pub(crate) scope: Scope,
}

impl Rendering {
    /// What it takes to keep it, its body apart; nothing for one that is always kept.
    fn weight(&self) -> Option<usize> {
        let projects = self.scope.projects.as_ref()?;
        Some(projects.iter().map(|project| project.len() + OVERHEAD).sum::<usize>() + OVERHEAD)
    }
}

/// An answer, once it is there.
type Cell = Arc<OnceCell<Bytes>>;

/// What was rendered so far.
#[derive(Debug, Default)]
pub(crate) struct Rendered {
    /// Held for a look-up; the rendering itself happens in the cell, where others that want the same wait for it.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    cells: BTreeMap<Rendering, Cell>,
    /// What those cells weigh that are not always kept.
    bytes: usize,
}

impl Rendered {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cell of this rendering: a new one for whoever asks first, or where no more are kept.
    fn cell(&self, rendering: &Rendering) -> Cell {
        let mut kept = self.lock();
        if let Some(cell) = kept.cells.get(rendering) {
            return Arc::clone(cell);
        }
        let cell = Cell::default();
        let bytes = kept.bytes + rendering.weight().unwrap_or_default();
        if bytes <= KEPT_LIMIT {
            kept.bytes = bytes;
            kept.cells.insert(rendering.clone(), Arc::clone(&cell));
        }
        cell
    }

    /// Whether this cell is kept for others.
    fn keeps(&self, rendering: &Rendering, cell: &Cell) -> bool {
        self.lock().cells.get(rendering).is_some_and(|kept| Arc::ptr_eq(kept, cell))
    }

    /// Whether somebody has asked for this rendering.
    fn has(&self, rendering: &Rendering) -> bool {
        self.lock().cells.contains_key(rendering)
    }

    /// Gives a cell up again whose body turned out to be too much.
    fn weigh(&self, rendering: &Rendering, cell: &Cell, body: &Bytes) {
        let Some(weight) = rendering.weight() else { return };
        let mut kept = self.lock();
        if !kept.cells.get(rendering).is_some_and(|kept| Arc::ptr_eq(kept, cell)) {
            return;
        }
        if kept.bytes + body.len() <= KEPT_LIMIT {
            kept.bytes += body.len();
        } else {
            kept.cells.remove(rendering);
            kept.bytes -= weight;
        }
    }
}

/// The answer, and whether it is kept for others, too. What is about some projects may have to be rendered for this recipient
/// alone, so it waits for its turn, and never holds the cell of others meanwhile.
pub(super) async fn render(
    collected: &Arc<Collected>,
    rendering: Rendering,
    recipient: &Recipient,
) -> Result<(Bytes, Made), ApiError> {
    let cell = collected.rendered.cell(&rendering);
    let body = match cell.get() {
        Some(body) => body.clone(),
        None if rendering.scope.projects.is_none() => {
            in_cell(collected, &rendering, &cell).await.map_err(ApiError::internal)?
        }
        None => {
            let _turn = recipient.turn().await?;
            let _place = recipient.rendering().await;
            in_cell(collected, &rendering, &cell).await.map_err(ApiError::internal)?
        }
    };
    let is_kept = collected.rendered.keeps(&rendering, &cell);
    Ok((body, if is_kept { Made::ForAll } else { Made::ForOne }))
}

async fn in_cell(collected: &Arc<Collected>, rendering: &Rendering, cell: &Cell) -> Result<Bytes, String> {
    let produce = || async {
        let body = produce(collected, rendering).await?;
        collected.rendered.weigh(rendering, cell, &body);
        Ok(body)
    };
    cell.get_or_try_init(produce).await.cloned()
}

/// A rendering that fails, as when the daemon stops, is no answer: an empty exposition would say that nothing runs.
async fn produce(collected: &Arc<Collected>, rendering: &Rendering) -> Result<Bytes, String> {
    let identity = Rendering { encoding: Encoding::Identity, ..rendering.clone() };
    // Where nobody wants the text itself it is not kept: it is some twenty times as large.
    let plain = if rendering.encoding != Encoding::Identity && collected.rendered.has(&identity) {
        // The plain form is a cell of its own; the recursion is one step deep.
        let cell = collected.rendered.cell(&identity);
        Some(Box::pin(in_cell(collected, &identity, &cell)).await?)
    } else {
        None
    };
    let (collected, encoding) = (Arc::clone(collected), rendering.encoding);
    let work = tokio::task::spawn_blocking(move || {
        let plain = plain.unwrap_or_else(|| {
            let Rendering { format, prefix, scope, .. } = identity;
            let mut text = encode(&collected.gathered.snapshot, format, prefix, &scope);
            // It may be kept for long, and its size was guessed.
            text.shrink_to_fit();
            Bytes::from(text)
        });
        encoding.compress(plain)
    });
    work.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cache::Gathered;

    fn nothing_found() -> Arc<Collected> {
        Arc::new(Collected {
            gathered: Gathered::default(),
            options: Arc::default(),
            begun: crate::clock::Moment::now(),
            rendered: Rendered::default(),
        })
    }

    async fn render(collected: &Arc<Collected>, rendering: Rendering) -> Result<Bytes, ApiError> {
        let own = Recipient::of(&Arc::default(), &http::Extensions::new());
        super::render(collected, rendering, &own).await.map(|(body, _)| body)
    }

    fn about(project: Option<String>, encoding: Encoding) -> Rendering {
        let scope = Scope { projects: project.map(|project| BTreeSet::from([project])), ..Scope::all() };
        Rendering { format: Format::Text, prefix: Prefix::Incus, encoding, scope }
    }

    /// Whether who asks twice gets the very same buffer.
    async fn is_kept(collected: &Arc<Collected>, rendering: &Rendering) -> bool {
        let first = render(collected, rendering.clone()).await.unwrap();
        let second = render(collected, rendering.clone()).await.unwrap();
        assert_eq!(first, second);
        first.as_ptr() == second.as_ptr()
    }

    #[tokio::test]
    async fn what_is_kept_has_a_bound_and_the_whole_is_always_kept() {
        let collected = nothing_found();
        for n in 0..1000 {
            assert!(is_kept(&collected, &about(Some(format!("p{n}")), Encoding::Gzip)).await);
        }
        let large = |n: usize| about(Some(format!("{n}{}", "x".repeat(1_000_000))), Encoding::Identity);
        let mut kept = 0;
        for n in 0..20 {
            kept += usize::from(is_kept(&collected, &large(n)).await);
        }
        assert!((14..17).contains(&kept), "{kept}");
        assert!(collected.rendered.lock().bytes <= KEPT_LIMIT);
        assert!(is_kept(&collected, &about(None, Encoding::Zstd)).await);
        assert!(is_kept(&collected, &about(Some("p7".to_owned()), Encoding::Gzip)).await);
    }

    #[tokio::test]
    async fn a_body_that_is_too_much_is_given_up_and_its_room_with_it() {
        let collected = nothing_found();
        let rendering = about(Some("p".to_owned()), Encoding::Identity);
        let cell = collected.rendered.cell(&rendering);
        collected.rendered.weigh(&rendering, &cell, &Bytes::from(vec![0; KEPT_LIMIT]));
        assert!(!collected.rendered.has(&rendering));
        assert_eq!(collected.rendered.lock().bytes, 0);
        // One that is not kept any more is not weighed again.
        collected.rendered.weigh(&rendering, &cell, &Bytes::from_static(b"x"));
        assert_eq!(collected.rendered.lock().bytes, 0);
    }

    #[tokio::test]
    async fn the_text_is_kept_for_those_alone_who_ask_for_it() {
        let collected = nothing_found();
        let (plain, gzip) = (about(None, Encoding::Identity), about(None, Encoding::Gzip));
        render(&collected, gzip.clone()).await.unwrap();
        assert!(!collected.rendered.has(&plain));
        let text = render(&collected, plain.clone()).await.unwrap();
        assert!(is_kept(&collected, &plain).await);
        let zstd = render(&collected, about(None, Encoding::Zstd)).await.unwrap();
        assert_eq!(zstd::bulk::decompress(&zstd, 1000).unwrap(), text);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hundred_who_ask_at_once_share_one_rendering() {
        let collected = nothing_found();
        let ask = || {
            let collected = Arc::clone(&collected);
            tokio::spawn(async move {
                let rendering = about(Some("p".to_owned()), Encoding::Gzip);
                render(&collected, rendering).await.unwrap().as_ptr() as usize
            })
        };
        let asked: Vec<_> = (0..100).map(|_| ask()).collect();
        let mut buffers = BTreeSet::new();
        for ask in asked {
            buffers.insert(ask.await.unwrap());
        }
        assert_eq!(buffers.len(), 1);
    }
}
