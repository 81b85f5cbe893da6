INSERT INTO wide_s SELECT * FROM wide WHERE id <= {rows} / 4;
INSERT INTO wide_s SELECT * FROM wide WHERE id > {rows} / 4 AND id <= {rows} / 2;
INSERT INTO wide_s SELECT * FROM wide WHERE id > {rows} / 2 AND id <= {rows} / 4 * 3;
INSERT INTO wide_s SELECT * FROM wide WHERE id > {rows} / 4 * 3;
UPDATE wide_s SET c_int = c_int + 1, c_t20 = c_t20 || 'x', c_tstz = now() WHERE id <= {rows} / 4;
DELETE FROM wide_s WHERE id > {rows} / 4 AND id <= {rows} / 4 + {rows} / 10;
