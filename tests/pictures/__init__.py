"""What the tests of views and widgets share: trips written by hand, and a reader of SVG."""
