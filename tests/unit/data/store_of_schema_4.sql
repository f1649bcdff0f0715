BEGIN TRANSACTION;
CREATE TABLE api_key (
	id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	role TEXT NOT NULL, 
	tags TEXT NOT NULL, 
	created_at TEXT NOT NULL, 
	created_by TEXT NOT NULL, 
	expires_at TEXT, 
	last_used_at TEXT, 
	revoked_at TEXT, 
	PRIMARY KEY (id)
);
CREATE TABLE api_session (
	digest TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	created_at TEXT NOT NULL, 
	expires_at TEXT NOT NULL, 
	PRIMARY KEY (digest)
);
CREATE TABLE delivery (
	sink TEXT NOT NULL, 
	seq INTEGER NOT NULL, 
	PRIMARY KEY (sink, seq), 
	FOREIGN KEY(seq) REFERENCES outbox (seq) ON DELETE CASCADE
);
INSERT INTO "delivery" VALUES('broker',2);
CREATE TABLE evidence (
	event_id TEXT NOT NULL, 
	stream_id TEXT NOT NULL, 
	watch_id TEXT NOT NULL, 
	type TEXT NOT NULL, 
	time TEXT NOT NULL, 
	held_by TEXT, 
	data TEXT NOT NULL, 
	PRIMARY KEY (event_id)
);
CREATE TABLE evidence_file (
	path TEXT NOT NULL, 
	sha256 TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	PRIMARY KEY (path)
);
CREATE TABLE evidence_part (
	event_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	path TEXT NOT NULL, 
	PRIMARY KEY (event_id, name), 
	FOREIGN KEY(event_id) REFERENCES evidence (event_id) ON DELETE CASCADE
);
CREATE TABLE hop_answers (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	stream_id TEXT NOT NULL, 
	end_s DOUBLE NOT NULL, 
	time TEXT NOT NULL, 
	data TEXT NOT NULL, 
	written_bytes BIGINT NOT NULL
);
CREATE TABLE label (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	event_id TEXT, 
	stream_id TEXT NOT NULL, 
	watch_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	start_utc TEXT NOT NULL, 
	end_utc TEXT NOT NULL, 
	note TEXT NOT NULL, 
	"by" TEXT NOT NULL, 
	at TEXT NOT NULL, 
	withdrawn_at TEXT, 
	withdrawn_by TEXT
);
INSERT INTO "label" VALUES(1,'e-1','gate','fire','true','2026-01-01T00:00:00+00:00','2026-01-01T00:00:00+00:00','right','anna','2026-01-01T00:00:00+00:00',NULL,NULL);
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema','4');
INSERT INTO "meta" VALUES('owner','1');
CREATE TABLE outbox (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	event_id TEXT NOT NULL, 
	stream_id TEXT NOT NULL, 
	watch_id TEXT, 
	type TEXT NOT NULL, 
	time TEXT NOT NULL, 
	data TEXT NOT NULL, 
	label TEXT, 
	written_bytes BIGINT DEFAULT '0' NOT NULL, 
	UNIQUE (event_id)
);
INSERT INTO "outbox" VALUES(1,'e-1','gate','fire','watch.opened','2026-01-01T00:00:00+00:00','{"question":"a fire?","n":1,"score":0.9}','true',40);
INSERT INTO "outbox" VALUES(2,'e-2','gate','fire','watch.opened','2026-01-01T00:00:00+00:00','{"question":"a fire?","n":1,"score":0.9}',NULL,80);
CREATE TABLE registry_edit (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind TEXT NOT NULL, 
	slug TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	at TEXT NOT NULL, 
	actor TEXT NOT NULL, 
	"before" TEXT, 
	"after" TEXT
);
INSERT INTO "registry_edit" VALUES(1,'stream','gate',1,'2026-01-01T00:00:00+00:00','anna',NULL,'{"url":"rtsp://cam/main"}');
CREATE TABLE registry_entry (
	kind TEXT NOT NULL, 
	slug TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	created_at TEXT NOT NULL, 
	updated_at TEXT NOT NULL, 
	PRIMARY KEY (kind, slug)
);
INSERT INTO "registry_entry" VALUES('stream','gate',1,'anna','{"url":"rtsp://cam/main"}','2026-01-01T00:00:00+00:00','2026-01-01T00:00:00+00:00');
CREATE TABLE resadapt_migration (
	version_num VARCHAR(32) NOT NULL, 
	PRIMARY KEY (version_num)
);
INSERT INTO "resadapt_migration" VALUES('sessions');
CREATE TABLE stream_state (
	stream_id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	resume_s DOUBLE NOT NULL, 
	updated_at TEXT NOT NULL, 
	PRIMARY KEY (stream_id)
);
INSERT INTO "stream_state" VALUES('gate','{"lineage":"a1b2c3"}',5.0,'2026-01-01T00:00:00+00:00');
INSERT INTO "stream_state" VALUES('yard','{"lineage":"d4e5f6"}',12.5,'2026-01-01T00:00:00+00:00');
CREATE INDEX ix_outbox_stream ON outbox (stream_id, seq);
CREATE INDEX ix_outbox_type ON outbox (type, seq);
CREATE INDEX ix_outbox_watch ON outbox (watch_id, seq);
CREATE INDEX ix_hop_answers_stream ON hop_answers (stream_id, seq);
CREATE INDEX ix_registry_edit_entry ON registry_edit (kind, slug, seq);
CREATE INDEX ix_evidence_time ON evidence (time);
CREATE INDEX ix_evidence_watch ON evidence (stream_id, watch_id, time);
CREATE INDEX ix_label_event ON label (event_id);
CREATE INDEX ix_label_watch ON label (watch_id, id);
CREATE INDEX ix_delivery_seq ON delivery (seq);
CREATE INDEX ix_evidence_part_path ON evidence_part (path);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',2);
INSERT INTO "sqlite_sequence" VALUES('registry_edit',1);
INSERT INTO "sqlite_sequence" VALUES('label',1);
COMMIT;
