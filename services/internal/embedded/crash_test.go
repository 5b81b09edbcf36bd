package embedded

func child(string) {}
