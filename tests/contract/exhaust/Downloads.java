import java.io.BufferedInputStream;
import java.io.FilterInputStream;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.zip.GZIPInputStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/**
 * Downloads an archive and reads it while it comes, as older clients do: the days out of the archive, the hours out of
 * the days, the lines out of the hours, with nothing kept. Arguments: URL, body. Prints each hour's file with its lines.
 */
class Downloads {
  public static void main(String[] arguments) throws Exception {
    HttpURLConnection connection = (HttpURLConnection) URI.create(arguments[0]).toURL().openConnection();
    connection.setRequestMethod("POST");
    connection.setRequestProperty("Content-Type", "application/json");
    connection.setDoOutput(true);
    connection.setConnectTimeout(10_000);
    connection.setReadTimeout(60_000);
    connection.getOutputStream().write(arguments[1].getBytes(StandardCharsets.UTF_8));
    System.out.println(connection.getResponseCode() + " " + connection.getContentType());
    try (ZipInputStream days = new ZipInputStream(new BufferedInputStream(connection.getInputStream()))) {
      for (ZipEntry day; (day = days.getNextEntry()) != null; ) {
        System.out.println(day.getName());
        if (day.getName().endsWith(".gz")) {
          readDay(days);
        }
      }
    }
  }

  static void readDay(InputStream data) throws Exception {
    ZipInputStream hours = new ZipInputStream(new Kept(data));
    for (ZipEntry hour; (hour = hours.getNextEntry()) != null; ) {
      MessageDigest digest = MessageDigest.getInstance("SHA-256");
      long lines = 0;
      InputStream text = new GZIPInputStream(new Kept(hours));
      byte[] buffer = new byte[65536];
      for (int read; (read = text.read(buffer)) >= 0; ) {
        digest.update(buffer, 0, read);
        for (int index = 0; index < read; index++) {
          lines += buffer[index] == '\n' ? 1 : 0;
        }
      }
      System.out.println(hour.getName() + " " + lines + " " + HexFormat.of().formatHex(digest.digest()));
    }
    // What is left of the day's file is its directory: to be read over, so that the next day is found.
    data.transferTo(java.io.OutputStream.nullOutputStream());
  }

  /** What is read goes on after it was read. */
  static class Kept extends FilterInputStream {
    Kept(InputStream data) {
      super(data);
    }

    @Override
    public void close() {}
  }
}
