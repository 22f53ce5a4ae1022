//! The end of `miharu info NAME`: where each of the instance's figures comes from, what it lacks, and why.

use std::io::Write;

use miharu_api::{Instance, InstanceSources, SourceGroup};

use crate::client::encoded;
use crate::commands::Context;
use crate::error::Failure;
use crate::output::printable;

/// How wide a list of names gets.
const WIDTH: usize = 100;

/// Asks the server.
pub(super) async fn ask(context: &Context<'_>, instance: &Instance) -> Result<InstanceSources, Failure> {
    let (name, project) = (encoded(&instance.name), encoded(&instance.project));
    context.client.get(&format!("/1.0/instances/{name}/sources?project={project}")).await
}

/// Writes what it says; where it says nothing, the rest of the page is worth having all the same.
pub(super) fn write(out: &mut dyn Write, answer: Result<InstanceSources, Failure>) -> Result<(), Failure> {
    let sources = match answer {
        Ok(sources) => sources,
        Err(failure) => {
            return Ok(writeln!(out, "\nSources: not told ({})", printable(&failure.to_string()))?);
        }
    };
    writeln!(out, "\nSources:")?;
    if sources.cgroups.is_empty() {
        writeln!(out, "  Cgroups: none of its own")?;
    } else {
        writeln!(out, "  Cgroups:")?;
    }
    for cgroup in &sources.cgroups {
        writeln!(out, "    {}: {}", printable(&cgroup.hierarchy), printable(&cgroup.directory))?;
    }
    sources.figures.iter().try_for_each(|group| write_group(out, group))
}

fn write_group(out: &mut dyn Write, group: &SourceGroup) -> Result<(), Failure> {
    writeln!(out, "  {}:", printable(&group.what))?;
    let mut line = String::new();
    for name in &group.families {
        let name = printable(name);
        if !line.is_empty() && line.len() + name.len() > WIDTH {
            writeln!(out, "    {line}")?;
            line.clear();
        }
        line += if line.is_empty() { "" } else { " " };
        line += &name;
    }
    if !line.is_empty() {
        writeln!(out, "    {line}")?;
    }
    for from in &group.from {
        writeln!(out, "      from {}", printable(from))?;
    }
    for lacks in &group.lacks {
        writeln!(out, "      lacks: {}", printable(lacks))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{Canned, Fake};

    const INSTANCE: &str = r#"{"name":"u 1","project":"docker/shop","status":"Running","type":"container","runtime":"docker",
        "id":"0123456789ab","config":{"image.description":"nginx:1.27"},"state":{"pid":4242,"processes":7,"source":"cgroup1"}}"#;

    const SOURCES: &str = r#"{"cgroups":[{"hierarchy":"cpu","directory":"/sys/fs/cgroup/cpu/docker/01"}],"figures":[
        {"what":"CPU time","families":["incus_cpu_seconds_total"],"from":["/sys/fs/cgroup/cpuacct/docker/01/cpuacct.usage_all"],"lacks":[]},
        {"what":"Memory","families":["incus_memory_Active_anon_bytes","incus_memory_Active_bytes","incus_memory_Active_file_bytes",
         "incus_memory_Cached_bytes"],"from":["/sys/fs/cgroup/memory/docker/01/memory.stat"],
         "lacks":["incus_memory_SReclaimable_bytes: the kernel does not tell it"]},
        {"what":"Network","families":[],"from":["/proc/4242/net/dev"],"lacks":["its network is shared\u001b[2J"]}]}"#;

    #[test]
    fn each_group_names_its_files_and_what_it_lacks() {
        let fake = Fake::start(vec![Canned::sync(INSTANCE), Canned::sync(SOURCES)]);
        let (result, out) = fake.miharu(&["info", "u 1"]);
        result.unwrap();
        assert_eq!(fake.requests()[1].line(), "GET /1.0/instances/u%201/sources?project=docker%2Fshop");
        assert!(out.contains("\nID: 0123456789ab\nImage: nginx:1.27\n"), "{out}");
        let (_, sources) = out.split_once("\n\nSources:").unwrap();
        expect![[r#"
            Sources:
              Cgroups:
                cpu: /sys/fs/cgroup/cpu/docker/01
              CPU time:
                incus_cpu_seconds_total
                  from /sys/fs/cgroup/cpuacct/docker/01/cpuacct.usage_all
              Memory:
                incus_memory_Active_anon_bytes incus_memory_Active_bytes incus_memory_Active_file_bytes
                incus_memory_Cached_bytes
                  from /sys/fs/cgroup/memory/docker/01/memory.stat
                  lacks: incus_memory_SReclaimable_bytes: the kernel does not tell it
              Network:
                  from /proc/4242/net/dev
                  lacks: its network is shared�[2J
        "#]]
        .assert_eq(&format!("Sources:{sources}"));
    }

    #[test]
    fn without_an_answer_the_page_says_so_at_its_end() {
        let fake = Fake::start(vec![Canned::sync(INSTANCE), Canned::error(503, "too late")]);
        let (result, out) = fake.miharu(&["info", "u 1"]);
        result.unwrap();
        assert!(out.ends_with("\nSources: not told (too late)\n"), "{out}");
    }
}
