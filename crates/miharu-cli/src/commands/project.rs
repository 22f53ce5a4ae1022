//! `miharu project`: the projects that instances are in, and that certificates can be limited to.

use std::io::Write;

use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use miharu_api::{Project, ProjectState, ProjectUsage, ProjectsPost};

use super::Context;
use crate::client::{Ask, encoded};
use crate::error::Failure;
use crate::output::{self, Format, Rows};
use crate::remote;

/// What to do with projects.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
The project of an instance follows from what runs it: Incus' and LXD's own, else lxc or nspawn.
Declaring one is only needed to limit a certificate to a project none of whose instances runs yet.")]
pub(crate) enum ProjectCommand {
    /// List the projects found on the host and the ones that were declared
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Print what is known of a project, as YAML
    Show(Name),
    /// Show how much runs in a project
    Info(InfoArgs),
    /// Declare a project
    Create(CreateArgs),
    /// Take a declaration back
    #[command(visible_alias = "rm")]
    Delete(Name),
}

/// The form of the list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[arg(hide = true)]
    remote: Option<String>,
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// A project, and the form of the list.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    name: Name,
    /// The form of the list
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// A project to declare.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    name: Name,
    /// What to say of it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// A project's name.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The project
    #[arg(value_name = "NAME")]
    name: String,
}

/// Does it.
pub(crate) async fn run(
    context: &Context<'_>,
    command: &ProjectCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match command {
        ProjectCommand::List(args) => list(context, args, out).await,
        ProjectCommand::Show(name) => show(context, name.get()?, out).await,
        ProjectCommand::Info(args) => info(context, args, out).await,
        ProjectCommand::Create(args) => create(context, args, out).await,
        ProjectCommand::Delete(name) => delete(context, name.get()?, out).await,
    }
}

impl Name {
    /// `lxc:/srv/lxc` is a project's name although it looks like a remote's: only `local:` is taken off.
    fn get(&self) -> Result<&str, Failure> {
        match self.name.strip_prefix("local:").unwrap_or(&self.name) {
            "" => Err(Failure::usage("the name of a project is empty")),
            name => Ok(name),
        }
    }
}

async fn list(context: &Context<'_>, args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    args.remote.as_deref().map(remote::strip).transpose()?;
    let projects: Vec<Project> = context.client.get("/1.0/projects?recursion=1").await?;
    let rows = Rows {
        headers: vec!["NAME", "DECLARED", "DESCRIPTION", "USED BY"],
        rows: projects
            .iter()
            .map(|project| {
                let declared = if project.declared { "YES" } else { "NO" };
                vec![
                    project.name.clone(),
                    declared.to_owned(),
                    project.description.clone(),
                    project.used_by.len().to_string(),
                ]
            })
            .collect(),
    };
    output::write_list(out, args.format, &rows, &projects)
}

async fn create(context: &Context<'_>, args: &CreateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let name = args.name.get()?;
    let post = ProjectsPost {
        name: name.to_owned(),
        description: args.description.clone().unwrap_or_default(),
        config: None,
    };
    context.client.send(Ask::new(Method::POST, "/1.0/projects").json(&post)?).await?.check()?;
    context.say(out, &format!("Project {name} created"))
}

async fn delete(context: &Context<'_>, name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let path = format!("/1.0/projects/{}", encoded(name));
    let reply = context.client.send(Ask::new(Method::DELETE, &path)).await?;
    reply.check().map_err(|failure| absent(failure, reply.status))?;
    context.say(out, &format!("Project {name} deleted"))
}

async fn show(context: &Context<'_>, name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let path = format!("/1.0/projects/{}", encoded(name));
    let reply = context.client.send(Ask::new(Method::GET, &path)).await?;
    let project: Project = reply.metadata().map_err(|failure| absent(failure, reply.status))?;
    output::write_yaml(out, &project)
}

async fn info(context: &Context<'_>, args: &InfoArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = format!("/1.0/projects/{}/state", encoded(args.name.get()?));
    let reply = context.client.send(Ask::new(Method::GET, &path)).await?;
    let state: ProjectState = reply.metadata().map_err(|failure| absent(failure, reply.status))?;
    let limit = |limit: i64| if limit < 0 { "UNLIMITED".to_owned() } else { limit.to_string() };
    let row = |(name, usage): (&String, &ProjectUsage)| {
        vec![name.to_uppercase(), limit(usage.limit), usage.usage.to_string()]
    };
    let rows =
        Rows { headers: vec!["RESOURCE", "LIMIT", "USAGE"], rows: state.resources.iter().map(row).collect() };
    output::write_list(out, args.format, &rows, &state.resources.iter().collect::<Vec<_>>())
}

fn absent(failure: Failure, status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND => {
            Failure::request(format!("{failure}\n`miharu project list` prints the projects there are."))
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::{Canned, Fake};

    #[test]
    fn projects_are_listed() {
        let fake = Fake::start(vec![Canned::sync(
            r#"[{"name":"default","used_by":["/1.0/instances/a","/1.0/instances/b"]},{"name":"shop","declared":true}]"#,
        )]);
        let (result, out) = fake.miharu(&["project", "list"]);
        result.unwrap();
        assert_eq!(fake.requests()[0].line(), "GET /1.0/projects?recursion=1");
        expect![[r#"
            +---------+----------+-------------+---------+
            |   NAME  | DECLARED | DESCRIPTION | USED BY |
            +---------+----------+-------------+---------+
            | default | NO       |             | 2       |
            +---------+----------+-------------+---------+
            | shop    | YES      |             | 0       |
            +---------+----------+-------------+---------+
        "#]]
        .assert_eq(&out);
    }

    #[test]
    fn a_project_is_shown_with_how_much_runs_in_it() {
        let fake = Fake::start(vec![
            Canned::sync(r#"{"name":"shop","description":"d","config":{},"used_by":[],"declared":true}"#),
            Canned::sync(
                r#"{"resources":{"containers":{"Limit":-1,"Usage":2},"instances":{"Limit":5,"Usage":2}}}"#,
            ),
            Canned::error(404, "Project not found"),
        ]);
        let shown = fake.miharu(&["project", "show", "local:shop"]).1;
        assert!(shown.starts_with("name: shop\ndescription: d\n"), "{shown}");
        let rows = fake.miharu(&["project", "info", "docker/shop", "-f", "csv"]).1;
        assert_eq!(rows, "CONTAINERS,UNLIMITED,2\nINSTANCES,5,2\n");
        assert_eq!(fake.requests()[1].line(), "GET /1.0/projects/docker%2Fshop/state");
        let failure = fake.miharu(&["project", "info", "x"]).0.unwrap_err().to_string();
        assert!(failure.contains("miharu project list"), "{failure}");
    }

    #[test]
    fn a_project_is_declared_and_taken_back() {
        let fake = Fake::start(vec![Canned::empty(), Canned::empty(), Canned::empty()]);
        assert_eq!(fake.miharu(&["project", "create", "docker/shop"]).1, "Project docker/shop created\n");
        assert_eq!(fake.miharu(&["project", "delete", "docker/shop"]).1, "Project docker/shop deleted\n");
        assert_eq!(fake.miharu(&["project", "delete", "lxc:/srv/x", "--quiet"]).1, "");
        let requests = fake.requests();
        assert_eq!(requests[0].line(), "POST /1.0/projects");
        assert_eq!(requests[0].body, r#"{"name":"docker/shop","description":""}"#);
        assert_eq!(requests[1].line(), "DELETE /1.0/projects/docker%2Fshop");
        assert_eq!(requests[2].line(), "DELETE /1.0/projects/lxc%3A%2Fsrv%2Fx");
    }
}
