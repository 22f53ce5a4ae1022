//! 100 to 2,000 containers, and fewer kept files than they have.

use anyhow::Result;

use crate::book::Book;
use crate::crowd::Crowd;
use crate::subject::Subject;

pub(crate) fn run(book: &mut Book) -> Result<()> {
    let mut crowd = Crowd::new(1)?;
    for count in [100, 500, 1000, 2000].map(|count| book.scaled(count)) {
        crowd.grow(count)?;
        let mut subject = Subject::start()?;
        book.note(&format!("{count} containers"), subject.measure()?)?;
    }
    let kept = book.scaled(2000);
    let mut subject = Subject::start()?;
    match subject.set("instances.kept_files", &kept.to_string()) {
        Ok(()) => {
            let case = format!("{} containers, instances.kept_files={kept}", crowd.len());
            book.note(&case, subject.measure()?)?;
        }
        Err(error) => book.say(&format!("without instances.kept_files: {error}")),
    }
    // All of them end at once: what was held for them has to go.
    let mut subject = Subject::start()?;
    subject.scrape()?;
    drop(crowd);
    let figures = subject.measure()?;
    book.note("all of them gone again, the same daemon", figures)
}
