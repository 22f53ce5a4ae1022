//! Join tokens in the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Transaction, params};

use crate::certificate::CertificateType;
use crate::token::{JoinToken, Secret};

/// Adds a token, and takes those away that have expired at the moment it was made.
pub(super) fn add(transaction: &Transaction<'_>, token: &JoinToken) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM join_tokens WHERE expires_at <= ?1", [token.created_at])?;
    transaction.execute(
        "INSERT INTO join_tokens (id, secret, name, description, type, restricted, created_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            token.id,
            token.secret.reveal(),
            token.name,
            token.description,
            token.certificate_type.as_str(),
            token.projects.is_some(),
            token.created_at,
            token.expires_at,
        ],
    )?;
    let mut insert =
        transaction.prepare_cached("INSERT INTO join_token_projects (id, project) VALUES (?1, ?2)")?;
    for project in token.projects.iter().flatten() {
        insert.execute(params![token.id, project])?;
    }
    Ok(())
}

/// Takes a token away; how many there were of it.
pub(super) fn remove(transaction: &Transaction<'_>, id: &str) -> rusqlite::Result<usize> {
    transaction.execute("DELETE FROM join_tokens WHERE id = ?1", [id])
}

pub(super) fn read(transaction: &Transaction<'_>) -> rusqlite::Result<BTreeMap<String, Arc<JoinToken>>> {
    let mut tokens = BTreeMap::new();
    let mut query = transaction.prepare_cached(
        "SELECT id, secret, name, description, type, restricted, created_at, expires_at FROM join_tokens",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let word: String = row.get(4)?;
        // As with certificates: what a newer version stored is worth nothing here.
        let Some(certificate_type) = CertificateType::parse(&word) else {
            tracing::warn!("a join token of unknown type '{word}' is not accepted");
            continue;
        };
        let token = JoinToken {
            id: row.get(0)?,
            secret: Secret::new(row.get(1)?),
            name: row.get(2)?,
            description: row.get(3)?,
            certificate_type,
            projects: row.get::<_, bool>(5)?.then(Default::default),
            created_at: row.get(6)?,
            expires_at: row.get(7)?,
        };
        tokens.insert(token.id.clone(), token);
    }
    let mut query = transaction.prepare_cached("SELECT id, project FROM join_token_projects")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        if let Some(projects) = tokens.get_mut(&id).and_then(|token| token.projects.as_mut()) {
            projects.insert(row.get(1)?);
        }
    }
    Ok(tokens.into_iter().map(|(id, token)| (id, Arc::new(token))).collect())
}
