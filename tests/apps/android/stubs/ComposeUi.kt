package androidx.compose.ui

interface Modifier {
    companion object : Modifier
}

interface Alignment {
    interface Horizontal

    companion object {
        val CenterHorizontally: Horizontal = TODO()
    }
}
