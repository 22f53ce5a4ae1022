-- What a miharu.db of schema 3 holds, as sqlite3's .dump wrote it.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE revision (only INTEGER PRIMARY KEY CHECK (only = 1), value INTEGER NOT NULL) STRICT;
INSERT INTO revision VALUES(1,7);
CREATE TABLE config (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO config VALUES('core.metrics_address','127.0.0.1:9100');
INSERT INTO config VALUES('metrics.prefix','lxd');
INSERT INTO config VALUES('user.note','höst''s;');
CREATE TABLE certificates (
         fingerprint TEXT PRIMARY KEY,
         der BLOB NOT NULL,
         type TEXT NOT NULL,
         name TEXT NOT NULL,
         description TEXT NOT NULL,
         restricted INTEGER NOT NULL
     , token BLOB) STRICT;
INSERT INTO certificates VALUES('b4d4350bb20d5f3a38e759733731059cd7afc75e53373ab4475afbc075701a9c',X'308201403081f3a003020102021440166847c60b18586492220ef9bd895f8d047732300506032b657030153113301106035504030c0a70726f6d6574686575733020170d3236313132323039333334375a180f32313236313032393039333334375a30153113301106035504030c0a70726f6d657468657573302a300506032b65700321001f2fd73058071b4c8cfbb0d1adccc67acbd055e87e25596ac094baf63fb75e0ea3533051301d0603551d0e04160414595930d8f7af39a34081c056f386a5d379575dc6301f0603551d23041830168014595930d8f7af39a34081c056f386a5d379575dc6300f0603551d130101ff040530030101ff300506032b657003410026af208489739bf40141b8bbefd9669ee6a6f5ecc0b9e61344dcf25cfb62140b63067f0a4d822b4ab628cd2d1527d41f594747cc2fe7d9a872727eb6ea6ec20d','metrics','prom','of the shop',1,NULL);
CREATE TABLE certificate_projects (
         fingerprint TEXT NOT NULL REFERENCES certificates ON DELETE CASCADE,
         project TEXT NOT NULL,
         PRIMARY KEY (fingerprint, project)
     ) STRICT;
INSERT INTO certificate_projects VALUES('b4d4350bb20d5f3a38e759733731059cd7afc75e53373ab4475afbc075701a9c','docker/shop');
INSERT INTO certificate_projects VALUES('b4d4350bb20d5f3a38e759733731059cd7afc75e53373ab4475afbc075701a9c','lxc');
CREATE TABLE projects (name TEXT PRIMARY KEY, description TEXT NOT NULL) STRICT;
INSERT INTO projects VALUES('docker/shop','the shop');
CREATE TABLE join_tokens (
         id TEXT PRIMARY KEY,
         secret TEXT NOT NULL UNIQUE,
         name TEXT NOT NULL,
         description TEXT NOT NULL,
         type TEXT NOT NULL,
         restricted INTEGER NOT NULL,
         created_at INTEGER NOT NULL,
         expires_at INTEGER
     ) STRICT;
INSERT INTO join_tokens VALUES('0b7a','not a secret','new','','client',1,100,NULL);
CREATE TABLE join_token_projects (
         id TEXT NOT NULL REFERENCES join_tokens ON DELETE CASCADE,
         project TEXT NOT NULL,
         PRIMARY KEY (id, project)
     ) STRICT;
INSERT INTO join_token_projects VALUES('0b7a','lxc');
CREATE TABLE cluster (
         only INTEGER PRIMARY KEY CHECK (only = 1),
         id TEXT NOT NULL,
         member TEXT NOT NULL,
         member_id TEXT NOT NULL,
         access TEXT NOT NULL,
         seal BLOB NOT NULL,
         pending INTEGER NOT NULL,
         removed INTEGER NOT NULL,
         synced_at INTEGER NOT NULL
     ) STRICT;
CREATE TABLE cluster_copy (
         key TEXT PRIMARY KEY,
         value BLOB NOT NULL,
         created INTEGER NOT NULL,
         modified INTEGER NOT NULL
     ) STRICT;
COMMIT;
PRAGMA user_version = 3;
