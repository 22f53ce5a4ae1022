//! A strict reader of the Prometheus text form. What a lenient scraper would take in silence is an error here: duplicate
//! series, labels out of order, families in two pieces, samples without a TYPE, unknown escapes, a missing end.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

/// One line of figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name as written, with the `_total` of a counter.
    pub name: String,
    /// The labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// The figure.
    pub value: f64,
}

impl Sample {
    /// The value of a label, or the empty string as Prometheus sees it.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn has(&self, wanted: &[(&str, &str)]) -> bool {
        wanted.iter().all(|(name, value)| self.label(name) == *value)
    }
}

/// A family: what HELP and TYPE say, and its samples in the order of the text.
#[derive(Clone, Debug, Default)]
pub struct Family {
    /// The name in the TYPE line.
    pub name: String,
    /// `counter` or `gauge`.
    pub kind: String,
    /// The text of HELP.
    pub help: String,
    /// The samples, as ordered in the text.
    pub samples: Vec<Sample>,
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// The families in the order of the text.
    pub families: Vec<Family>,
}

impl Exposition {
    /// Reads the text form (`text/plain; version=0.0.4` with the closing `# EOF` of Incus).
    ///
    /// # Errors
    /// At the first thing that is not as it must be, with the line.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text.strip_suffix("# EOF\n").context("the last line is not `# EOF`")?;
        let mut families: Vec<Family> = Vec::new();
        let mut names = BTreeSet::new();
        let mut series = BTreeSet::new();
        for (number, line) in body.split_terminator('\n').enumerate() {
            let at = || format!("line {}: {line}", number + 1);
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').with_context(at)?;
                ensure!(names.insert(name.to_owned()), "family given twice: {}", at());
                families.push(Family { name: name.to_owned(), help: help.to_owned(), ..Family::default() });
                continue;
            }
            let family = families.last_mut().with_context(|| format!("no HELP before {}", at()))?;
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(at)?;
                ensure!(
                    name == family.name && family.kind.is_empty(),
                    "TYPE does not follow its HELP: {}",
                    at()
                );
                ensure!(matches!(kind, "counter" | "gauge"), "unknown type: {}", at());
                kind.clone_into(&mut family.kind);
                continue;
            }
            let sample = parse_sample(line).with_context(at)?;
            ensure!(!family.kind.is_empty(), "no TYPE before {}", at());
            ensure!(sample.name == family.name, "sample outside its family {}: {}", family.name, at());
            ensure!(sample.value.is_finite(), "not a finite number: {}", at());
            ensure!(family.kind != "counter" || sample.value >= 0.0, "a negative counter: {}", at());
            ensure!(
                series.insert((sample.name.clone(), sample.labels.clone())),
                "duplicate series: {}",
                at()
            );
            family.samples.push(sample);
        }
        if let Some(empty) = families.iter().find(|family| family.samples.is_empty()) {
            bail!("family without a sample: {}", empty.name);
        }
        Ok(Self { families })
    }

    /// The family of that name.
    #[must_use]
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.name == name)
    }

    /// Every sample, in the order of the text.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.families.iter().flat_map(|family| &family.samples)
    }

    /// The samples of a family that carry these labels.
    #[must_use]
    pub fn select(&self, family: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        self.family(family)
            .map(|family| family.samples.iter().filter(|sample| sample.has(labels)).collect())
            .unwrap_or_default()
    }

    /// The one figure of a family with these labels.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn value(&self, family: &str, labels: &[(&str, &str)]) -> Result<f64> {
        match self.select(family, labels).as_slice() {
            [one] => Ok(one.value),
            [] => bail!("no sample of {family} with {labels:?}"),
            many => bail!("{} samples of {family} with {labels:?}", many.len()),
        }
    }

    /// The sum of a family over the samples with these labels.
    ///
    /// # Errors
    /// When there is none.
    pub fn sum(&self, family: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let samples = self.select(family, labels);
        ensure!(!samples.is_empty(), "no sample of {family} with {labels:?}");
        Ok(samples.iter().map(|sample| sample.value).sum())
    }

    /// The names of the instances that have a series.
    #[must_use]
    pub fn instances(&self) -> BTreeSet<String> {
        self.samples().filter_map(|sample| sample.labels.get("name").cloned()).collect()
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|rest| rest.is_ascii_alphanumeric() || rest == '_')
}

fn parse_sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("neither labels nor a value")?;
    let (name, rest) = line.split_at(end);
    ensure!(is_name(name), "not a metric name: {name}");
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = value.strip_prefix(' ').context("no blank before the value")?;
    ensure!(!value.contains(' '), "something after the value, such as a timestamp");
    Ok(Sample { name: name.to_owned(), labels, value: value.parse().context("not a number")? })
}

fn parse_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut last = String::new();
    loop {
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        ensure!(is_name(name), "not a label name: {name}");
        ensure!(name > last.as_str(), "labels not in alphabetical order, or twice: {name}");
        name.clone_into(&mut last);
        let (value, after) = parse_value(after)?;
        labels.insert(name.to_owned(), value);
        if let Some(after) = after.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = after.strip_prefix(',').context("neither a comma nor a brace after a label")?;
    }
}

fn parse_value(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next().context("a label value without its end")? {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.push(match chars.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => bail!("unknown escape {other:?}"),
            }),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total What a counts.\n# TYPE a_total counter\n\
        a_total{device=\"x\\\",name=\\\"y\\\\\\n\",name=\"u1\"} 5\na_total 6.5\n# EOF\n";

    #[test]
    fn reads_names_labels_and_values() {
        let read = Exposition::parse(GOOD).unwrap();
        assert_eq!(read.value("a_total", &[("name", "u1")]).unwrap(), 5.0);
        assert_eq!(read.families[0].samples[0].label("device"), "x\",name=\"y\\\n");
        assert_eq!(read.families[0].help, "What a counts.");
        assert_eq!(read.sum("a_total", &[]).unwrap(), 11.5);
        assert_eq!(read.instances().into_iter().collect::<Vec<_>>(), ["u1"]);
        assert!(read.value("a_total", &[]).is_err(), "two samples match");
        assert!(read.value("b_total", &[]).is_err(), "no sample matches");
    }

    #[test]
    fn refuses_what_is_not_strict() {
        let head = "# HELP a h\n# TYPE a gauge\n";
        for (body, why) in [
            ("a{x=\"1\"} 1\na{x=\"1\"} 2\n", "duplicate"),
            ("a{y=\"1\",x=\"1\"} 1\n", "order"),
            ("a{x=\"1\",x=\"1\"} 1\n", "order"),
            ("a{x=\"\\t\"} 1\n", "escape"),
            ("a{x=\"1} 1\n", "end"),
            ("a 1 1700000000\n", "timestamp"),
            ("a one\n", "number"),
            ("a NaN\n", "finite"),
            ("b 1\n", "outside"),
            ("a 1\n# HELP a h\n# TYPE a gauge\na{x=\"1\"} 1\n", "twice"),
            ("", "without a sample"),
        ] {
            let error = format!("{:#}", Exposition::parse(&format!("{head}{body}# EOF\n")).unwrap_err());
            assert!(error.contains(why), "{body}: {error}");
        }
        assert!(Exposition::parse("# HELP a h\n# TYPE a gauge\na 1\n").is_err(), "no end");
        assert!(
            Exposition::parse("# HELP a h\n# TYPE a counter\na -1\n# EOF\n").is_err(),
            "negative counter"
        );
    }
}
