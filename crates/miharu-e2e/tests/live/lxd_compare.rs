//! LXD and miharu side by side.

use anyhow::Result;
use miharu_e2e::lxd::Lxd;
use miharu_e2e::need;

#[test]
fn both() -> Result<()> {
    need!(Lxd);
    let mut lxd = Lxd::start()?;
    lxd.lxc(&["project", "create", "foo", "-c", "features.images=false", "-c", "features.profiles=false"])?;
    lxd.launch("default", "c1", &[])?;
    lxd.launch("foo", "c2", &[])?;
    println!("{}", lxd.lxc(&["query", "/1.0/metrics"])?);
    println!("{}", lxd.lxc(&["list", "--all-projects"])?);
    Ok(())
}
