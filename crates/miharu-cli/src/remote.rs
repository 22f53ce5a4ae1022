//! Remote names as Incus and LXD users write them: `local:c1`, `local:`. There is one server, the local one.

use crate::error::Failure;

/// Takes `local:` off a name; any other remote is refused, as `miharu` talks to this host alone.
///
/// Only a plain word before the first colon is taken for a remote: `:8444` and `/1.0/metrics?x=a:b` hold none.
pub(crate) fn strip(argument: &str) -> Result<&str, Failure> {
    let Some((remote, rest)) = argument.split_once(':') else { return Ok(argument) };
    let is_word = remote.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match remote {
        "local" => Ok(rest),
        "" => Ok(argument),
        _ if !is_word => Ok(argument),
        _ => Err(Failure::usage(format!(
            "there is no remote '{remote}': miharu talks to the miharud of this host alone, so leave '{remote}:' out \
             and run it on that host (for example over ssh)"
        ))),
    }
}

/// Leaves a leading `local:` out of the arguments, as in `miharu config get local: core.metrics_address`.
pub(crate) fn strip_leading(arguments: &[String]) -> Result<&[String], Failure> {
    match arguments.split_first() {
        Some((first, rest)) if first.ends_with(':') && !first.contains('=') && !rest.is_empty() => {
            strip(first)?;
            Ok(rest)
        }
        _ => Ok(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_is_taken_off() {
        assert_eq!(strip("local:/1.0").unwrap(), "/1.0");
        assert_eq!(strip("local:").unwrap(), "");
        assert_eq!(strip("c1").unwrap(), "c1");
        assert_eq!(strip(":8444").unwrap(), ":8444");
        assert_eq!(strip("/1.0/metrics?project=k8s:x").unwrap(), "/1.0/metrics?project=k8s:x");
    }

    #[test]
    fn another_remote_is_refused() {
        let error = strip("prod:c1").unwrap_err();
        assert!(matches!(&error, Failure::Usage(m) if m.contains("no remote 'prod'")), "{error}");
    }

    #[test]
    fn a_leading_remote_is_left_out() {
        let words = |s: &str| s.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(strip_leading(&words("local: a b")).unwrap(), words("a b"));
        assert_eq!(strip_leading(&words("a b")).unwrap(), words("a b"));
        assert!(strip_leading(&words("prod: a b")).is_err());
    }
}
