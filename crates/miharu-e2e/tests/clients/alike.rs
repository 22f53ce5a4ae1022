//! The same commands to the original and to miharud, one after the other: each has to be answered alike.

use anyhow::{Context, Result, ensure};
use miharu_e2e::clients::Alike::{self, Columns, Fields, Header, Reason, Status, Wholly};
use miharu_e2e::clients::Said;
use miharu_e2e::lxd::{Kind, Lxd};
use miharu_e2e::tls::Certificate;
use miharu_e2e::{Client, Miharud, miharud, need, scratch};

const FIELDS: Alike = Fields(&[]);
/// What Incus tells and LXD 5.0.2 does not, and the serial number of a disk, which both have only from udev.
const RESOURCES: &[&str] = &["load", "Average1Min", "Average5Min", "Average10Min", "Processes", "serial"];
/// What miharud tells beyond both.
const INSTANCE: &[&str] = &["id", "runtime"];
/// What miharud tells beyond both, and what Incus tells and LXD 5.0.2 does not.
const STATE: &[&str] = &["hostname", "source", "uptime", "vcpus", "allocated_time", "started_at", "total"];

/// `@` stands for the server, `NAME` for a container that both servers see.
const CONFIG: &[(Alike, &str)] = &[
    (Wholly, "config set @ nonsense 1"),
    (Wholly, "config set @ core.metrics_authentication maybe"),
    (Wholly, "config set @ core.remote_token_expiry=1H core.metrics_authentication=false"),
    (Wholly, "config get @ core.remote_token_expiry"),
    (Wholly, "config get @ core.metrics_authentication"),
    (FIELDS, "config show @"),
    (Wholly, "config set @ core.remote_token_expiry=1d nonsense=2"),
    (Wholly, "config get @ core.remote_token_expiry"),
    (Wholly, "config set @ core.metrics_authentication true"),
    (Wholly, "config unset @ core.metrics_authentication"),
    (Wholly, "config get @ nonsense"),
    (Wholly, "config unset @ nonsense"),
    (Status, "config set @ core.remote_token_expiry rubbish"),
    (Wholly, "config unset @ core.remote_token_expiry"),
    (Wholly, "config get @ core.remote_token_expiry"),
    (FIELDS, "info @"),
    (Fields(&[]), "info @ --resources"),
];

const INSTANCES: &[(Alike, &str)] = &[
    (Wholly, "list @ NAME --format csv --columns nst"),
    (Header, "list @ NAME"),
    (Header, "list @ NAME --format compact"),
    (Columns, "list @ NAME --format csv"),
    (FIELDS, "list @ NAME --format json"),
    (FIELDS, "list @ NAME --format yaml"),
    (Columns, "list @ NAME --format csv --fast"),
    (Columns, "list @ NAME --format csv --all-projects"),
    (Header, "list @ NAME --all-projects"),
    (Wholly, "list @ NAME --format csv --columns nstpPbmulc4S --project nosuch"),
    (Columns, "list @ NAME --format csv --columns nstpPmulDc4S"),
    (Wholly, "list @ NAME status=running --format csv --columns n"),
    (Wholly, "list @ NAME status=stopped --format csv --columns n"),
    (Wholly, "list @ NAME type=virtual-machine --format csv --columns n"),
    (Wholly, "list @ name=NAME --format csv --columns n"),
    (Wholly, "list @ ^NAME$ --format csv --columns n"),
    (Wholly, "list @ --columns nosuch"),
    (Wholly, "list @ --format bogus"),
    (Status, "info @NAME"),
    (Reason, "info @nobody"),
    (FIELDS, "config show @NAME"),
    (Reason, "config show @nobody"),
    (Wholly, "config get @NAME limits.cpu"),
];

const PROJECTS: &[(Alike, &str)] = &[
    (Header, "project list @"),
    (Columns, "project list @ --format csv"),
    (FIELDS, "project list @ --format json"),
    (Status, "project show @default"),
    (Wholly, "project show @nobody"),
    (Header, "project info @default"),
    (Wholly, "project create @p1"),
    (Status, "project create @p1"),
    (FIELDS, "project show @p1"),
    (Wholly, "list @ --project p1 --format csv"),
    (Wholly, "project switch @nobody"),
    (Wholly, "project delete @p1"),
    (Reason, "project delete @p1"),
    (Wholly, "project delete @default"),
];

const REST: &[(Alike, &str)] = &[
    (Header, "warning list @"),
    (Wholly, "warning show @nobody"),
    (Wholly, "warning delete @nobody"),
    (Wholly, "operation show @nobody"),
    (Wholly, "operation delete @nobody"),
    (Wholly, "cluster list @"),
    (Wholly, "cluster show @nobody"),
    (Wholly, "cluster list-tokens @"),
    (Wholly, "query @/"),
    (Fields(&["auth_user_method", "auth_user_name"]), "query @/1.0"),
    (Fields(RESOURCES), "query @/1.0/resources"),
    (FIELDS, "query @/1.0/cluster"),
    (Fields(INSTANCE), "query @/1.0/instances/NAME"),
    (Fields(STATE), "query @/1.0/instances/NAME/state"),
    (Fields(INSTANCE), "query --raw @/1.0/instances/NAME"),
    (FIELDS, "query @/1.0/projects/default/state"),
    (Fields(&["description"]), "query @/1.0/certificates?recursion=1"),
    (Wholly, "query @/1.0/nothing"),
    (Wholly, "query @/1.0/"),
    (Reason, "query @/1.0/instances/nobody"),
    (Wholly, "query -X DELETE @/1.0"),
    (Status, "query @/1.0/metrics"),
    (Status, "query -X POST @/1.0/instances"),
];

/// The original and miharud, asked in the same way.
struct Pair {
    original: Client,
    ours: Client,
    name: String,
}

impl Pair {
    /// All of them, and whatever differs at once.
    fn all(&self, commands: &[(Alike, &str)]) -> Result<()> {
        let differing = commands.iter().filter_map(|(alike, line)| self.one(*alike, line).err());
        let differing: Vec<String> = differing.map(|error| format!("{error:#}")).collect();
        ensure!(differing.is_empty(), "{}", differing.join("\n"));
        Ok(())
    }

    fn one(&self, alike: Alike, line: &str) -> Result<()> {
        let line = line.replace("NAME", &self.name);
        alike.compare(&self.original.run(&line)?, &self.ours.run(&line)?).with_context(|| line.clone())
    }

    /// What goes on until it is ended: an event and, with Incus, the table of `top`.
    fn watched(&self, kind: Kind) -> Result<()> {
        let event = |client: &Client| -> Result<Said> {
            let watch = client.watch("monitor @ --type=lifecycle")?;
            let happened = |event: &&str| event.contains("action: config-updated");
            // Until a client listens it is told nothing.
            let seen = watch.until("an event", |text| {
                let _ = client.run("config set @ core.remote_token_expiry 1H");
                let _ = client.run("config unset @ core.remote_token_expiry");
                text.split("\n\n").any(|event| happened(&event) && event.contains("type: lifecycle"))
            })?;
            let event = seen.split("\n\n").find(happened).unwrap_or_default();
            Ok(Said { status: None, out: event.to_owned(), err: String::new() })
        };
        FIELDS.compare(&event(&self.original)?, &event(&self.ours)?).context("monitor")?;
        if kind == Kind::Incus {
            let columns = |client: &Client| -> Result<String> {
                let seen =
                    client.watch("top @")?.until("a table", |text| text.contains("| INSTANCE NAME"))?;
                let row = seen.lines().find(|line| line.contains("| INSTANCE NAME")).unwrap_or_default();
                Ok(row.split_whitespace().collect())
            };
            assert_eq!(columns(&self.original)?, columns(&self.ours)?);
        }
        Ok(())
    }

    /// The trust store, with a certificate in it, and tokens.
    ///
    /// The tokens are made by others, as `lxc` 5.0.2 takes a lone remote for the name of a file.
    fn trust(&self, makers: &Pair) -> Result<()> {
        let certificate = Certificate::create("metrics")?;
        let fingerprint = certificate.fingerprint()?;
        let short = fingerprint.get(..12).context("fingerprint")?;
        let lists = || {
            let formats = ["table", "csv", "json", "yaml", "compact", "bogus"];
            formats
                .iter()
                .try_for_each(|format| self.one(Wholly, &format!("config trust list @ --format {format}")))
        };
        lists()?;
        let add = |file| -> Result<()> {
            Wholly.compare(&self.original.trust(file)?, &self.ours.trust(file)?).context("trust add")
        };
        add(&certificate.crt)?;
        add(&certificate.crt)?;
        lists()?;
        for wanted in [&fingerprint, short, "0123456789ab"] {
            self.one(Wholly, &format!("config trust show @{wanted}"))?;
        }
        // What an editor would hand back.
        for changed in
            ["name: other\ntype: metrics\nrestricted: true\nprojects: [default]\n", "type: nonsense\n"]
        {
            let line = format!("config trust edit @{short}");
            let certificate = std::fs::read_to_string(&certificate.crt)?.replace('\n', "\n  ");
            let input = format!("{changed}certificate: |\n  {certificate}\n");
            Status
                .compare(&self.original.tell(&line, &input)?, &self.ours.tell(&line, &input)?)
                .context(line)?;
            self.one(Wholly, &format!("config trust show @{short}"))?;
        }
        self.one(Wholly, &format!("config trust remove @{short}"))?;
        self.one(Wholly, &format!("config trust remove @{short}"))?;

        self.one(Wholly, "config trust revoke-token @nobody")?;
        makers.original.token("desk", "")?;
        makers.ours.token("desk", "")?;
        for (alike, format) in [(Header, "table"), (Columns, "csv"), (FIELDS, "json"), (FIELDS, "yaml")] {
            self.one(alike, &format!("config trust list-tokens @ --format {format}"))?;
            // The server's own work is in the list of the originals, too.
            let alike = if alike == FIELDS { Status } else { alike };
            self.one(alike, &format!("operation list @ --format {format}"))?;
        }
        self.one(Wholly, "config trust revoke-token @desk")?;
        self.one(Header, "config trust list-tokens @")
    }
}

/// Everything over the sockets first, then over HTTPS.
fn compare(kind: Kind) -> Result<()> {
    let mut original = Lxd::of(kind)?;
    let name = scratch::unique("c");
    original.launch("default", &name, &[])?;
    let daemon = Miharud::with(&[])?;
    let local = Pair {
        original: Client::local(kind, &original.dir)?,
        ours: Client::local(kind, &daemon.dir)?,
        name: name.clone(),
    };
    let both = |pair: &Pair| {
        pair.all(&[CONFIG, INSTANCES, PROJECTS, REST].concat())?;
        pair.watched(kind)?;
        pair.trust(&local)
    };
    // A token is made by a server that has an address.
    local.original.ok(&format!("config set core.https_address 127.0.0.1:{}", miharud::free_port()?))?;
    daemon.listen("core.https_address")?;
    both(&local).context("over the socket")?;

    let remote = Client::remote(kind, &local.original.token("away", "")?)?;
    let ours = remote.elsewhere(&local.ours.token("away", "")?)?;
    both(&Pair { original: remote, ours, name }).context("over HTTPS")
}

#[test]
fn lxc_is_answered_as_by_lxd() -> Result<()> {
    need!(Lxd, Tls);
    compare(Kind::Lxd)
}

#[test]
fn incus_is_answered_as_by_incus() -> Result<()> {
    need!(Incus, Tls);
    compare(Kind::Incus)
}
