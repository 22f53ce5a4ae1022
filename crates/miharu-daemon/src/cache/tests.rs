//! The cache on a source that counts, sleeps, fails and hangs.

use std::sync::atomic::{AtomicUsize, Ordering};

use miharu_metrics::{FamilySet, Format, Prefix, Scope, Wanted};

use super::*;
use crate::negotiate::Encoding;

/// What the fake source does in its nth collection.
type Script = fn(usize) -> Result<Gathered, String>;

struct Fake {
    count: Arc<AtomicUsize>,
    script: Script,
}

impl Source for Fake {
    fn collect(&mut self, _: &Options) -> Result<Gathered, String> {
        (self.script)(self.count.fetch_add(1, Ordering::SeqCst))
    }
}

fn cache(script: Script) -> (Arc<Cache>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let make = move || Box::new(Fake { count: Arc::clone(&counter), script }) as Box<dyn Source>;
    (Cache::new(Box::new(make)), count)
}

fn wish(max_age: u64, patience: Option<u64>) -> Wish {
    Wish {
        options: Arc::new(Options::default()),
        max_age: Duration::from_millis(max_age),
        patience: patience.map(Duration::from_millis),
    }
}

fn nap(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

#[tokio::test]
async fn fifty_scrapers_of_a_cold_cache_share_one_collection() {
    let (cache, count) = cache(|_| {
        nap(50);
        Ok(Gathered::default())
    });
    let scrapers: Vec<_> = (0..50)
        .map(|_| {
            let cache = Arc::clone(&cache);
            tokio::spawn(async move { cache.get(wish(8_000, None)).await })
        })
        .collect();
    for scraper in scrapers {
        assert!(scraper.await.unwrap().is_ok());
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn figures_are_collected_again_when_they_are_too_old_or_asked_for_otherwise() {
    let (cache, count) = cache(|_| Ok(Gathered::default()));
    cache.get(wish(30, None)).await.unwrap();
    cache.get(wish(8_000, None)).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_millis(40)).await;
    cache.get(wish(30, None)).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let mut other = wish(8_000, None);
    Arc::make_mut(&mut other.options).instance_timeout = Duration::from_millis(1);
    cache.get(other).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_collection_of_everything_serves_those_who_want_less_and_not_the_other_way_round() {
    let (cache, count) = cache(|_| {
        nap(30);
        Ok(Gathered::default())
    });
    let whole = wish(8_000, None);
    let mut less = whole.clone();
    let families = FamilySet::all().without(|name| name.starts_with("pressure_"));
    Arc::make_mut(&mut less.options).wanted = Wanted::by(families);
    cache.get(whole.clone()).await.unwrap();
    cache.get(less.clone()).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    less.max_age = Duration::ZERO;
    cache.get(less.clone()).await.unwrap();
    cache.get(whole.clone()).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 3);
    // Also for one that comes while less is collected.
    let scrape = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { cache.get(less).await.unwrap() }
    });
    while cache.lock().running.is_none() {
        tokio::task::yield_now().await;
    }
    let at_once = Wish { max_age: Duration::from_millis(1), ..whole.clone() };
    assert!(cache.get(at_once).await.unwrap().covers(&whole));
    scrape.await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn an_impatient_client_gets_old_figures_or_a_reason_and_harms_nobody() {
    let (cache, count) = cache(|_| {
        nap(1_000);
        Ok(Gathered::default())
    });
    let error = cache.get(wish(60_000, Some(10))).await.unwrap_err();
    assert!(error.contains("the collection was not done after 0."), "{error}");
    // The collection went on without it.
    cache.get(wish(60_000, None)).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // Too old, and not twice as old as they may be, on a busy machine neither.
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert!(cache.get(wish(3_000, Some(10))).await.is_ok());
}

#[tokio::test]
async fn a_failed_collection_falls_back_and_is_tried_again() {
    let (cache, _) = cache(|n| if n == 1 { Err("no procfs".to_owned()) } else { Ok(Gathered::default()) });
    cache.get(wish(3_000, None)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert!(cache.get(wish(3_000, None)).await.is_ok(), "the last figures are not twice as old");
    let (cache, _) = self::cache(|_| Err("no procfs".to_owned()));
    assert_eq!(cache.get(wish(100, None)).await.unwrap_err(), "no procfs");
}

#[tokio::test]
async fn a_collection_that_hangs_or_panics_does_not_block_the_next() {
    let (cache, _) = cache(|n| match n {
        0 => {
            nap(4_000);
            Ok(Gathered::default())
        }
        1 => panic!("a bug"),
        _ => Ok(Gathered::default()),
    });
    let mut short = wish(8_000, None);
    Arc::make_mut(&mut short.options).collect_timeout = Duration::from_millis(100);
    assert!(cache.get(short).await.is_err());
    assert!(cache.get(wish(8_000, None)).await.is_err());
    assert!(cache.get(wish(8_000, None)).await.is_ok());
}

#[tokio::test]
async fn an_answer_is_rendered_once() {
    let (cache, _) = cache(|_| Ok(Gathered::default()));
    let collected = cache.get(wish(8_000, None)).await.unwrap();
    let rendering =
        |encoding| Rendering { format: Format::Text, prefix: Prefix::Incus, scope: Scope::all(), encoding };
    let own = Recipient::of(&Arc::default(), &http::Extensions::new());
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        let (first, made) = collected.render(rendering(encoding), &own).await.unwrap();
        assert_eq!(made, Made::ForAll);
        let (second, _) = collected.render(rendering(encoding), &own).await.unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr(), "the very same buffer");
    }
}

#[test]
fn patience_is_a_little_less_than_the_scrape_timeout() {
    assert_eq!(patience(10.0), Some(Duration::from_millis(9_500)));
    assert_eq!(patience(1.0), Some(Duration::from_millis(900)));
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(patience(wrong), None);
    }
}
