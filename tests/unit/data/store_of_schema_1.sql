BEGIN TRANSACTION;
CREATE TABLE delivery (
	sink TEXT NOT NULL, 
	seq INTEGER NOT NULL, 
	PRIMARY KEY (sink, seq), 
	FOREIGN KEY(seq) REFERENCES outbox (seq) ON DELETE CASCADE
);
INSERT INTO "delivery" VALUES('broker',1);
INSERT INTO "delivery" VALUES('broker',2);
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema','1');
CREATE TABLE outbox (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	event_id TEXT NOT NULL, 
	stream_id TEXT NOT NULL, 
	watch_id TEXT, 
	type TEXT NOT NULL, 
	time TEXT NOT NULL, 
	data TEXT NOT NULL, 
	UNIQUE (event_id)
);
INSERT INTO "outbox" VALUES(1,'e-1','gate',NULL,'stream.attached','2026-01-01T00:00:00+00:00','{"n":1,"stream_s":0.0}');
INSERT INTO "outbox" VALUES(2,'e-2','gate','fire','watch.opened','2026-01-01T00:00:00+00:00','{"n":1,"question":"is there a fire?","score":0.93,"onset_s":4.0}');
CREATE TABLE stream_state (
	stream_id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	resume_s DOUBLE NOT NULL, 
	updated_at TEXT NOT NULL, 
	PRIMARY KEY (stream_id)
);
INSERT INTO "stream_state" VALUES('gate','{"watches":{"fire@0123456789ab":{"is_open":true,"votes":[{"start_s":4.0,"opens":true,"clears":false}],"transitions":1,"onset_s":4.0,"shut_until_s":null}},"transitions":1,"lineage":"a1b2c3"}',5.0,'2026-01-01T00:00:00+00:00');
INSERT INTO "stream_state" VALUES('yard','{"watches":{},"transitions":0,"lineage":"d4e5f6"}',12.5,'2026-01-01T00:00:00+00:00');
CREATE INDEX ix_delivery_seq ON delivery (seq);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',2);
COMMIT;
