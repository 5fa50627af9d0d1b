import java.io.BufferedInputStream;
import java.io.FileInputStream;
import java.io.InputStream;
import java.security.MessageDigest;
import java.util.Collections;
import java.util.HexFormat;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipInputStream;

/** Prints name, size and SHA-256 of each entry, read by the directory and read as a stream. */
class Reads {
  public static void main(String[] arguments) throws Exception {
    try (ZipFile zip = new ZipFile(arguments[0])) {
      for (ZipEntry entry : Collections.list(zip.entries())) {
        print("ZipFile", entry.getName(), zip.getInputStream(entry));
      }
      System.out.println("comment " + zip.getComment());
    }
    try (ZipInputStream zip = new ZipInputStream(new BufferedInputStream(new FileInputStream(arguments[0])))) {
      for (ZipEntry entry; (entry = zip.getNextEntry()) != null; ) {
        print("ZipInputStream", entry.getName(), zip);
      }
    }
  }

  static void print(String how, String name, InputStream data) throws Exception {
    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    byte[] buffer = new byte[65536];
    long size = 0;
    for (int read; (read = data.read(buffer)) >= 0; size += read) {
      digest.update(buffer, 0, read);
    }
    System.out.println(how + " " + name + " " + size + " " + HexFormat.of().formatHex(digest.digest()));
  }
}
